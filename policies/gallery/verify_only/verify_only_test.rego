package gateway.tests.verify_only

import data.gateway.policies.verify_only as rules

settings := {"agents": ["auditor", "review-*"], "checks": ["ci.run_tests"]}

request(agent, fqn, effect) := {
	"phase": "call",
	"principal": {"kind": "agent", "id": agent},
	"agent": {"id": agent},
	"tool": {"fqn": fqn, "effect": effect},
}

denied(call, with_settings) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as call with data.house.verify_only as with_settings
}

test_reading_is_free if denied(request("auditor", "erp.find", "read"), settings) == set()

test_a_check_may_run if denied(request("review-2", "ci.run_tests", "write"), settings) == set()

test_changes_are_refused_and_hidden if {
	every effect in ["write", "destructive", "money", "unknown"] {
		every phase in ["list", "call"] {
			call := object.union(request("review-2", "erp.post", effect), {"phase": phase})
			denied(call, settings) == {"verify_only.change"}
		}
	}
}

test_what_destroys_is_no_check if {
	every effect in ["destructive", "money"] {
		denied(request("auditor", "ci.run_tests", effect), settings) == {"verify_only.change"}
	}
}

test_others_are_not_concerned if {
	denied(request("clerk", "erp.post", "write"), settings) == set()
	denied(object.remove(request("auditor", "erp.post", "write"), ["agent"]), settings) == set()
}

test_settings_that_cannot_be_read_deny_every_call if {
	every wrong in [
		null,
		{},
		object.union(settings, {"agent": "x"}),
		object.union(settings, {"agents": "auditor"}),
		object.union(settings, {"agents": []}),
		object.union(settings, {"checks": "ci.*"}),
		object.union(settings, {"checks": [7]}),
	] {
		denied(request("clerk", "erp.find", "read"), wrong) == {"verify_only.settings"}
		denied(object.union(request("clerk", "erp.find", "read"), {"phase": "list"}), wrong) == set()
	}
}

test_missing_settings_deny_every_call if {
	{reason.id | some reason in rules.deny} == {"verify_only.settings"} with input as request("a", "b.c", "read")
		with data.house as {}
}
