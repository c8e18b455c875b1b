package gateway.tests.access

import data.gateway.policies.access as rules

settings := {
	"tools": ["iam.grant"],
	"arguments": {"user": "user", "role": "role", "days": "days"},
	"roles": {
		"reader": {"most_days": 90},
		"editor": {"most_days": 30, "people": {"roles": ["owner"]}},
		"root": {"most_days": 1, "people": {"quorum": 2, "roles": ["security"]}},
	},
}

grant(args) := {
	"phase": "call",
	"principal": {"kind": "agent", "id": "helpdesk"},
	"on_behalf_of": {"id": "Dora@example.org", "groups": []},
	"tool": {"fqn": "iam.grant", "effect": "write"},
	"args": object.union({"user": "ben@example.org", "role": "reader", "days": 90}, args),
}

denied(call, with_settings) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as call with data.house.access as with_settings
}

asked(args) := {[need.id, need.quorum, need.roles] | some need in needs} if {
	needs := rules.require with input as grant(args) with data.house.access as settings
}

test_a_role_within_bounds if {
	denied(grant({}), settings) == set()
	asked({}) == set()
}

test_roles_ask_their_people if {
	asked({"role": "editor", "days": 1}) == {["access.approval", 1, ["owner"]]}
	asked({"role": "root", "days": 1}) == {["access.approval", 2, ["security"]]}
}

test_a_role_that_is_not_listed if {
	every role in ["Reader", "", 7, null, ["reader"]] {
		denied(grant({"role": role}), settings) == {"access.role"}
	}
}

test_days if {
	every days in [91, 0, -1, 1.5, "90", null] {
		denied(grant({"days": days}), settings) == {"access.days"}
	}
	denied(grant({"role": "root", "days": 2}), settings) == {"access.days"}
}

test_nobody_changes_their_own_access if {
	every name in ["dora@example.org", "DORA@example.org"] {
		denied(grant({"user": name}), settings) == {"access.own"}
	}
	denied(grant({"user": "Helpdesk"}), settings) == {"access.own"}
	alone := object.union(grant({}), {"principal": {"kind": "person", "id": "ben@example.org"}})
	denied(alone, settings) == {"access.own"}
}

test_a_name_that_cannot_be_compared if {
	every name in ["", "dоra@example.org", "dora@example.org ", "a\nb", 7, null, ["dora@example.org"]] {
		denied(grant({"user": name}), settings) == {"access.user"}
	}
}

test_what_is_not_concerned if {
	every other in [{"tool": {"fqn": "iam.list"}}, {"phase": "list"}] {
		denied(object.union(grant({"role": "no"}), other), settings) == set()
	}
}

test_settings_that_cannot_be_read_deny_the_call if {
	every wrong in [
		null,
		{},
		object.union(settings, {"tool": 1}),
		object.union(settings, {"tools": "iam.grant"}),
		object.union(settings, {"arguments": {"person": "p"}}),
		object.union(settings, {"arguments": {"days": 7}}),
		object.union(object.remove(settings, ["arguments"]), {"arguments": {"user": "user", "role": "role"}}),
		object.union(settings, {"roles": []}),
		object.union(settings, {"roles": {"reader": {"most_days": 0}}}),
		object.union(settings, {"roles": {"guest": {}}}),
		object.union(settings, {"roles": {"reader": {"days": 1}}}),
		object.union(settings, {"roles": {"reader": {"people": {"quorum": "two"}}}}),
	] {
		denied(grant({}), wrong) == {"access.settings"}
	}
}

# Nothing else is known of these calls, not even whether the package is about them.
test_tools_that_cannot_be_read_deny_every_call if {
	every wrong in [null, [], {}, object.union(settings, {"tools": []}), object.union(settings, {"tools": [7]})] {
		denied(object.union(grant({}), {"tool": {"fqn": "any.tool"}}), wrong) == {"access.settings"}
	}
}

test_missing_settings_deny_every_call if {
	{reason.id | some reason in rules.deny} == {"access.settings"} with input as grant({})
		with data.house as {}
}
