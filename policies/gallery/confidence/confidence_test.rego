package gateway.tests.confidence

import data.gateway.policies.confidence as rules

settings := {
	"tools": ["erp.*"],
	"effects": ["write", "money"],
	"silent": "ask",
	"people": {"quorum": 2, "roles": ["lead"]},
	"deny_below": 30,
	"ask_below": 80,
	"ask_above_risk": 50,
	"deny_above_risk": 90,
}

call := {"phase": "call", "tool": {"fqn": "erp.post", "effect": "write"}}

saying(risk) := object.union(call, {"risk": risk})

denied(request, with_settings) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as request with data.house.confidence as with_settings
}

asked(request) := {[need.id, need.quorum, need.roles] | some need in needs} if {
	needs := rules.require with input as request with data.house.confidence as settings
}

ask := {["confidence.ask", 2, ["lead"]]}

test_an_agent_that_is_sure_is_not_sent_to_people if {
	every risk in [{"confidence_pct": 80}, {"confidence_pct": 100, "score_pct": 50}] {
		denied(saying(risk), settings) == set()
		asked(saying(risk)) == set()
	}
}

test_one_that_is_not_sure_is if {
	every risk in [{"confidence_pct": 79}, {"confidence_pct": 30}, {"confidence_pct": 100, "score_pct": 51}] {
		denied(saying(risk), settings) == set()
		asked(saying(risk)) == ask
	}
}

test_silence_is_not_being_sure if {
	every request in [call, saying({"score_pct": 0})] {
		denied(request, settings) == set()
		asked(request) == ask
	}
}

said(request) := {need.msg | some need in needs} if {
	needs := rules.require with input as request with data.house.confidence as settings
}

test_people_are_told_why_they_are_asked if {
	said(saying({"confidence_pct": 40})) == {"the agent is 40 % sure of this call"}
	said(saying({"confidence_pct": 90, "score_pct": 60})) == {"the agent puts the risk of this call at 60 of 100"}
	said(call) == {"the agent does not say how sure it is of this call"}
}

test_silence_may_be_refused if {
	denied(call, object.union(settings, {"silent": "deny"})) == {"confidence.silent"}
	denied(saying({"confidence_pct": 90}), object.union(settings, {"silent": "deny"})) == set()
}

test_very_unsure_or_very_risky if {
	denied(saying({"confidence_pct": 29}), settings) == {"confidence.too_low"}
	denied(saying({"confidence_pct": 100, "score_pct": 91}), settings) == {"confidence.too_risky"}
}

test_what_is_not_concerned if {
	every other in [{"tool": {"effect": "read"}}, {"tool": {"fqn": "crm.post"}}, {"phase": "list"}] {
		request := object.union(saying({"confidence_pct": 0}), other)
		denied(request, settings) == set()
		asked(request) == set()
	}
}

test_settings_that_cannot_be_read_deny_the_call if {
	every wrong in [
		null,
		{},
		object.remove(settings, ["ask_below"]),
		object.union(settings, {"more": 1}),
		object.union(settings, {"tools": []}),
		object.union(settings, {"effects": "write"}),
		object.union(settings, {"effects": ["writes"]}),
		object.union(settings, {"silent": "allow"}),
		object.union(settings, {"people": {"quorum": 0}}),
		object.union(settings, {"ask_below": 101}),
		object.union(settings, {"ask_below": 20}),
		object.union(settings, {"deny_above_risk": 20}),
	] {
		denied(call, wrong) == {"confidence.settings"}
	}
}

# Nothing else is known of these calls, not even whether the package is about them.
test_tools_that_cannot_be_read_deny_every_call if {
	every wrong in [null, [], {}, object.union(settings, {"tools": []}), object.union(settings, {"tools": [7]}), object.union(settings, {"effects": ["any"]})] {
		denied(object.union(call, {"tool": {"fqn": "any.tool", "effect": "read"}}), wrong) == {"confidence.settings"}
	}
}

test_missing_settings_deny_every_call if {
	{reason.id | some reason in rules.deny} == {"confidence.settings"} with input as call
		with data.house as {}
}
