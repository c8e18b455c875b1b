package gateway.tests.team_scope

import data.gateway.policies.team_scope as rules

settings := {"teams": {"sales": {
	"groups": ["sales"],
	"agents": ["crm-agent"],
	"within": ["crm.*"],
	"allow": ["crm.find_*", "crm.add_note", "erp.find"],
}}}

request(fqn, effect) := {
	"phase": "call",
	"principal": {"kind": "agent", "id": "crm-agent"},
	"agent": {"id": "crm-agent"},
	"on_behalf_of": {"id": "dora", "groups": ["sales"]},
	"tool": {"server": "crm", "fqn": fqn, "effect": effect},
}

granted(call) := {reason.id | some reason in reasons} if {
	reasons := rules.allow with input as call with data.house.team_scope as settings
}

hinted(call) := {reason.id | some reason in reasons} if {
	reasons := rules.hint with input as call with data.house.team_scope as settings
}

denied(call, with_settings) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as call with data.house.team_scope as with_settings
}

test_a_team_gives_its_members_and_agents if {
	granted(request("crm.find_lead", "read")) == {"team_scope.granted"}
	granted(request("crm.add_note", "write")) == {"team_scope.granted"}
	granted(object.union(request("crm.find_lead", "read"), {"phase": "list"})) == {"team_scope.granted"}
}

test_a_member_needs_no_agent if {
	alone := object.union(request("crm.find_lead", "read"), {"principal": {
		"kind": "person",
		"id": "dora",
		"groups": ["sales"],
	}})
	granted(object.remove(alone, ["agent", "on_behalf_of"])) == {"team_scope.granted"}
}

test_never_what_destroys_or_moves_money if {
	every effect in ["destructive", "money", "unknown"] {
		granted(request("crm.find_lead", effect)) == set()
	}
}

test_never_outside_of_the_boundary if {
	granted(request("erp.find", "read")) == set()
	hinted(request("erp.find", "read")) == {"team_scope.outside"}
}

test_what_the_team_did_not_list if {
	granted(request("crm.delete", "write")) == set()
	hinted(request("crm.delete", "write")) == set()
}

test_strangers if {
	every other in [
		{"agent": {"id": "other-agent"}},
		{"on_behalf_of": {"groups": []}},
		{"on_behalf_of": {"groups": ["hr"]}},
		{"principal": {"kind": "other"}},
	] {
		granted(object.union(request("crm.find_lead", "read"), other)) == set()
	}
}

test_settings_that_cannot_be_read_deny_reads_and_writes if {
	every wrong in [
		null,
		{},
		{"teams": []},
		object.union(settings, {"team": 1}),
		object.union(settings, {"teams": {"sales": {"group": "sales"}}}),
		object.union(settings, {"teams": {"sales": {"groups": "sales"}}}),
		object.union(settings, {"teams": {"sales": {"agents": [7]}}}),
		object.union(settings, {"teams": {"sales": {"within": []}}}),
		object.union(settings, {"teams": {"sales": {"allow": ["{a}"]}}}),
	] {
		denied(request("any.tool", "read"), wrong) == {"team_scope.settings"}
		denied(object.union(request("any.tool", "read"), {"phase": "list"}), wrong) == set()
	}
}

test_missing_settings_deny_every_call if {
	{reason.id | some reason in rules.deny} == {"team_scope.settings"} with input as request("a.b", "read")
		with data.house as {}
}
