package gateway.tests.verify_only

import data.gateway.policies.verify_only as rules

settings := {
	"agents": ["auditor", "review-*"],
	"checks": ["ci.run_tests"],
	"changes": "hide",
	"reads": "free",
	"people": {"roles": ["lead"]},
}

seen := object.union(settings, {"changes": "ask", "reads": "ask"})

request(agent, fqn, effect) := {
	"phase": "call",
	"principal": {"kind": "agent", "id": agent},
	"agent": {"id": agent},
	"tool": {"fqn": fqn, "effect": effect},
}

denied(call, with_settings) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as call with data.house.verify_only as with_settings
}

asked(call, with_settings) := {[need.id, need.quorum, need.roles] | some need in needs} if {
	needs := rules.require with input as call with data.house.verify_only as with_settings
}

ask := {["verify_only.ask", 1, ["lead"]]}

test_nothing_is_done_before_a_person_has_looked if {
	every effect in ["read", "write", "destructive", "money"] {
		denied(request("auditor", "erp.post", effect), seen) == set()
		asked(request("auditor", "erp.post", effect), seen) == ask
		asked(request("clerk", "erp.post", effect), seen) == set()
		asked(object.union(request("auditor", "erp.post", effect), {"phase": "list"}), seen) == set()
	}
}

test_people_may_be_asked_about_changes_alone if {
	changes := object.union(seen, {"reads": "free"})
	asked(request("auditor", "erp.find", "read"), changes) == set()
	asked(request("auditor", "ci.run_tests", "write"), changes) == set()
	asked(request("auditor", "erp.post", "write"), changes) == ask
}

test_what_is_hidden_is_not_asked_about if asked(request("auditor", "erp.post", "write"), settings) == set()

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

test_settings_that_cannot_be_read_deny_the_call if {
	every wrong in [
		null,
		{},
		object.union(settings, {"agent": "x"}),
		object.union(settings, {"agents": "auditor"}),
		object.union(settings, {"agents": []}),
		object.union(settings, {"checks": "ci.*"}),
		object.union(settings, {"checks": [7]}),
		object.union(settings, {"changes": "allow"}),
		object.union(settings, {"reads": "hide"}),
		object.union(settings, {"people": {"quorum": 0}}),
	] {
		denied(request("auditor", "erp.find", "read"), wrong) == {"verify_only.settings"}
		denied(object.union(request("auditor", "erp.find", "read"), {"phase": "list"}), wrong) == set()
	}
}

# Nothing else is known of these calls, not even whether the package is about them.
test_agents_that_cannot_be_read_deny_every_call if {
	every wrong in [null, [], {}, object.union(settings, {"agents": []}), object.union(settings, {"agents": [7]})] {
		denied(request("clerk", "erp.find", "read"), wrong) == {"verify_only.settings"}
	}
}

test_missing_settings_deny_every_call if {
	{reason.id | some reason in rules.deny} == {"verify_only.settings"} with input as request("a", "b.c", "read")
		with data.house as {}
}
