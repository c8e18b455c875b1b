package gateway.tests.phases

import data.gateway.policies.phases as rules

in_phase(phase) := {"rollouts": {"crm": {
	"tools": ["crm.*"],
	"phase": phase,
	"groups": ["pilot"],
	"calls_per_run": 2,
	"people": {"roles": ["lead"]},
}}}

request(groups, calls) := {
	"phase": "call",
	"principal": {"kind": "agent", "id": "helper"},
	"on_behalf_of": {"id": "dora", "groups": groups},
	"run": {"calls": calls},
	"tool": {"fqn": "crm.update", "effect": "write"},
}

denied(call, settings) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as call with data.house.phases as settings
}

asked(call, settings) := {[need.id, need.quorum, need.roles] | some need in needs} if {
	needs := rules.require with input as call with data.house.phases as settings
}

test_in_phase_observe_nothing_is_changed if {
	denied(request(["pilot"], {}), in_phase("observe")) == {"phases.observe"}
}

test_reading_is_free_in_every_phase if {
	every phase in ["observe", "small_group"] {
		denied(object.union(request([], {}), {"tool": {"effect": "read"}}), in_phase(phase)) == set()
	}
}

test_the_small_group_goes_first if {
	denied(request(["pilot"], {}), in_phase("small_group")) == set()
	asked(request(["pilot"], {}), in_phase("small_group")) == {["phases.approval", 1, ["lead"]]}
	denied(request(["sales"], {}), in_phase("small_group")) == {"phases.group"}
	denied(request([], {}), in_phase("small_group")) == {"phases.group"}
}

test_so_many_calls_a_run if {
	denied(request(["pilot"], {"crm.update": 1, "erp.post": 9}), in_phase("small_group")) == set()
	denied(request(["pilot"], {"crm.update": 1, "crm.delete": 1}), in_phase("small_group")) == {"phases.calls_per_run"}
	denied(request(["pilot"], null), in_phase("small_group")) == {"phases.calls_per_run"}
}

test_everybody_in_phase_widen if {
	denied(request([], {"crm.update": 9}), in_phase("widen")) == set()
	asked(request([], {}), in_phase("widen")) == set()
}

test_a_rollout_without_bounds_or_people if {
	bare := {"rollouts": {"crm": {"tools": ["crm.*"], "phase": "small_group", "groups": ["pilot"]}}}
	denied(request(["pilot"], {"crm.update": 9}), bare) == set()
	asked(request(["pilot"], {}), bare) == set()
}

test_what_is_not_concerned if {
	every other in [{"tool": {"fqn": "erp.post"}}, {"phase": "list"}] {
		denied(object.union(request([], {}), other), in_phase("observe")) == set()
	}
}

test_settings_that_cannot_be_read_deny_the_call if {
	every wrong in [
		null,
		{},
		{"rollouts": []},
		object.union(in_phase("widen"), {"more": 1}),
		object.union(in_phase("widen"), {"rollouts": {"crm": {"tools": "crm.*"}}}),
		object.union(in_phase("widen"), {"rollouts": {"crm": {"stage": 1}}}),
		object.union(in_phase("widen"), {"rollouts": {"crm": {"groups": "pilot"}}}),
		object.union(in_phase("widen"), {"rollouts": {"crm": {"calls_per_run": "2"}}}),
		object.union(in_phase("widen"), {"rollouts": {"crm": {"people": 2}}}),
		in_phase("everybody"),
	] {
		denied(request(["pilot"], {}), wrong) == {"phases.settings"}
	}
}

# Nothing else is known of these calls, not even whether the package is about them.
test_tools_that_cannot_be_read_deny_every_call if {
	every wrong in [null, [], {}, {"rollouts": {"crm": {}}}, {"rollouts": {"crm": 7}}] {
		denied(object.union(request([], {}), {"tool": {"fqn": "any.tool", "effect": "read"}}), wrong) == {"phases.settings"}
	}
}

test_missing_settings_deny_every_call if {
	{reason.id | some reason in rules.deny} == {"phases.settings"} with input as request([], {})
		with data.house as {}
}
