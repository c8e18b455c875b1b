package gateway.tests.data_guard

import data.gateway.policies.data_guard as rules

settings := {
	"labels": {
		"personal": {"groups": ["hr", "support"], "most_retention_days": 30},
		"confidential": {"groups": ["finance"]},
	},
	"residency": {"eu": ["eu", "ch"], "us": ["us"]},
	"egress": {"after": ["hr.*", "crm.export_*"], "allow": ["mail.send_internal"]},
}

request(tool) := {
	"phase": "call",
	"principal": {"kind": "agent", "id": "helper"},
	"on_behalf_of": {"id": "dora", "groups": ["support"]},
	"context": {"region": "eu"},
	"run": {"calls": {}},
	"tool": object.union(
		{
			"fqn": "hr.find",
			"effect": "read",
			"open_world": false,
			"labels": ["personal"],
			"vendor": {"region": "ch", "retention_days": 30},
		},
		tool,
	),
}

denied(call, with_settings) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as call with data.house.data_guard as with_settings
}

test_a_guarded_tool_within_bounds if denied(request({}), settings) == set()

test_tools_without_guarded_labels_are_free if {
	denied(request({"labels": ["erp"], "vendor": {"region": "mars"}}), settings) == set()
	denied(request({"labels": []}), settings) == set()
}

test_labels_are_for_their_groups if {
	denied(request({"labels": ["confidential"]}), settings) == {"data_guard.group"}
	denied(request({"labels": ["personal", "confidential"]}), settings) == {"data_guard.group"}
	alone := object.union(request({}), {"principal": {"kind": "person", "id": "ben", "groups": ["finance"]}})
	denied(alone, settings) == {"data_guard.group"}
}

test_how_long_a_vendor_keeps_data if {
	denied(request({"vendor": {"retention_days": 31}}), settings) == {"data_guard.retention"}
	silent := object.remove(request({}).tool, ["vendor"])
	bare := object.union(object.remove(request({}), ["tool"]), {"tool": object.union(silent, {"vendor": {"region": "eu"}})})
	denied(bare, settings) == {"data_guard.retention"}
}

test_residency if {
	every region in ["us", "", "unspecified"] {
		denied(request({"vendor": {"region": region}}), settings) == {"data_guard.residency"}
	}
	elsewhere := object.union(request({}), {"context": {"region": "asia"}})
	denied(elsewhere, settings) == {"data_guard.residency"}
}

outside(calls, fqn) := object.union(request({"fqn": fqn, "open_world": true, "labels": []}), {"run": {"calls": calls}})

test_the_outside_is_free_for_a_clean_run if denied(outside({"erp.find": 3}, "web.post"), settings) == set()

test_after_sensitive_tools_the_outside_is_shut if {
	every tool in ["hr.find", "crm.export_all"] {
		denied(outside({tool: 1}, "web.post"), settings) == {"data_guard.egress"}
		denied(outside({tool: 1}, "mail.send_internal"), settings) == set()
	}
}

test_a_run_of_which_nothing_is_known_is_not_clean if {
	denied(object.union(outside({}, "web.post"), {"run": {"calls": null}}), settings) == {"data_guard.egress"}
}

test_no_exceptions_at_all if {
	none := object.union(settings, {"egress": {"allow": []}})
	denied(outside({"hr.find": 1}, "mail.send_internal"), none) == {"data_guard.egress"}
}

test_listing_is_not_concerned if {
	denied(object.union(request({"labels": ["confidential"]}), {"phase": "list"}), settings) == set()
}

test_settings_that_cannot_be_read_deny_the_call if {
	every wrong in [
		null,
		{},
		object.union(settings, {"label": 1}),
		object.union(settings, {"labels": []}),
		object.union(settings, {"labels": {"personal": {"groups": "hr"}}}),
		object.union(settings, {"labels": {"personal": {"group": ["hr"]}}}),
		object.union(settings, {"labels": {"personal": {"most_retention_days": "30"}}}),
		object.union(settings, {"residency": []}),
		object.union(settings, {"residency": {"eu": "ch"}}),
		object.union(settings, {"egress": {"before": []}}),
		object.union(settings, {"egress": {"after": []}}),
		object.union(settings, {"egress": {"allow": ["{a}"]}}),
		object.union(settings, {"egress": {"allow": "mail.*"}}),
	] {
		denied(request({}), wrong) == {"data_guard.settings"}
	}
}

# Nothing else is known of these calls, not even whether the package is about them.
test_labels_that_cannot_be_read_deny_every_call if {
	every wrong in [null, [], {}, object.union(settings, {"labels": []})] {
		denied(request({"labels": []}), wrong) == {"data_guard.settings"}
	}
}

test_missing_settings_deny_every_call if {
	{reason.id | some reason in rules.deny} == {"data_guard.settings"} with input as request({})
		with data.house as {}
}
