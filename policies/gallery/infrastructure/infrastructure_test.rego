package gateway.tests.infrastructure

import data.gateway.policies.infrastructure as rules

settings := {
	"tools": ["infra.*"],
	"arguments": {"environment": "environment", "count": "count", "ticket": "ticket"},
	"environments": {
		"staging": {"most": 20, "destructive": true},
		"lab": {},
		"production": {
			"most": 3,
			"ticket": "CHG-",
			"freezes": [{"from": "2026-12-20", "until": "2027-01-03"}],
			"people": {"quorum": 1, "roles": ["operations"]},
		},
	},
}

change(args) := {
	"phase": "call",
	"time": {"us": 1770021000000000, "rfc3339": "2026-02-02T08:30:00.000000Z"},
	"tool": {"fqn": "infra.scale", "effect": "write"},
	"args": args,
}

in_production(more) := change(object.union({"environment": "production", "count": 3, "ticket": "CHG-42"}, more))

denied(call, with_settings) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as call with data.house.infrastructure as with_settings
}

asked(call) := {[need.id, need.quorum, need.roles] | some need in needs} if {
	needs := rules.require with input as call with data.house.infrastructure as settings
}

test_a_change_within_bounds if {
	denied(change({"environment": "staging", "count": 20}), settings) == set()
	asked(change({"environment": "staging", "count": 20})) == set()
	denied(change({"environment": "lab"}), settings) == set()
}

test_production_asks_people if {
	denied(in_production({}), settings) == set()
	asked(in_production({})) == {["infrastructure.approval", 1, ["operations"]]}
}

test_an_environment_that_is_not_listed if {
	every args in [{}, {"environment": "prod"}, {"environment": 7}, {"environment": ["staging"]}] {
		denied(change(args), settings) == {"infrastructure.environment"}
	}
}

test_too_many_things if {
	every number in [4, -1, 1.5, "3", null] {
		denied(in_production({"count": number}), settings) == {"infrastructure.most"}
	}
	denied(change({"environment": "staging"}), settings) == {"infrastructure.most"}
}

test_a_change_needs_its_ticket if {
	every ticket in ["", "42", "CHG-", "CHG-x", "xCHG-42", "CHG-42 ", "CHG-42\n", 42, null] {
		denied(in_production({"ticket": ticket}), settings) == {"infrastructure.ticket"}
	}
}

at(rfc3339) := object.union(in_production({}), {"time": {"rfc3339": rfc3339}})

test_frozen_days if {
	every day in ["2026-12-20T00:00:00.000000Z", "2027-01-02T23:59:59.999999Z"] {
		denied(at(day), settings) == {"infrastructure.frozen"}
	}
	every day in ["2026-12-19T23:59:59.999999Z", "2027-01-03T00:00:00.000000Z"] {
		denied(at(day), settings) == set()
	}
}

test_destroying_is_allowed_by_name_only if {
	destructive := {"tool": {"effect": "destructive"}}
	denied(object.union(in_production({}), destructive), settings) == {"infrastructure.destructive"}
	denied(object.union(change({"environment": "staging", "count": 1}), destructive), settings) == set()
}

test_what_is_not_concerned if {
	every other in [{"tool": {"effect": "read"}}, {"tool": {"fqn": "erp.scale"}}, {"phase": "list"}] {
		denied(object.union(change({}), other), settings) == set()
	}
}

test_settings_that_cannot_be_read_deny_the_call if {
	every wrong in [
		null,
		{},
		object.union(settings, {"tool": 1}),
		object.union(settings, {"tools": []}),
		object.union(settings, {"arguments": {"number": "n"}}),
		object.union(settings, {"arguments": {"count": 7}}),
		object.union(object.remove(settings, ["arguments"]), {"arguments": {"count": "count"}}),
		object.union(settings, {"environments": []}),
		object.union(settings, {"environments": {"lab": {"most": "3"}}}),
		object.union(settings, {"environments": {"lab": {"least": 3}}}),
		object.union(settings, {"environments": {"lab": {"ticket": ""}}}),
		object.union(settings, {"environments": {"lab": {"destructive": "yes"}}}),
		object.union(settings, {"environments": {"lab": {"people": {"quorum": 0}}}}),
		object.union(settings, {"environments": {"lab": {"freezes": {}}}}),
		object.union(settings, {"environments": {"lab": {"freezes": [{"from": "2026-12-20"}]}}}),
		object.union(settings, {"environments": {"lab": {"freezes": [{"from": "Monday", "until": "Friday"}]}}}),
		object.union(settings, {"environments": {"lab": {"freezes": [{"from": "2027-01-03", "until": "2026-12-20"}]}}}),
		object.union(settings, {"environments": {"lab": {"freezes": [{"from": "2026-13-01", "until": "2027-01-03"}]}}}),
	] {
		denied(in_production({}), wrong) == {"infrastructure.settings"}
	}
}

# Nothing else is known of these calls, not even whether the package is about them.
test_tools_that_cannot_be_read_deny_every_call if {
	every wrong in [null, [], {}, object.union(settings, {"tools": []}), object.union(settings, {"tools": [7]})] {
		denied(object.union(change({}), {"tool": {"fqn": "any.tool", "effect": "read"}}), wrong) == {"infrastructure.settings"}
	}
}

test_missing_settings_deny_every_call if {
	{reason.id | some reason in rules.deny} == {"infrastructure.settings"} with input as change({})
		with data.house as {}
}
