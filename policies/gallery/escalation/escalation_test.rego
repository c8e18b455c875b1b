package gateway.tests.escalation

import data.gateway.policies.escalation as rules

settings := {
	"cost": {"most_micros": {"EUR": 500000}, "people": {"roles": ["budget-owner"]}},
	"personal": {"labels": ["personal", "health"], "effects": ["write"], "people": {"roles": ["privacy"]}},
	"regulatory": {"labels": ["sox"], "effects": ["read", "write"], "people": {"quorum": 2, "roles": ["compliance"]}},
}

request(tool) := {
	"phase": "call",
	"tool": object.union(
		{"fqn": "crm.update", "effect": "write", "labels": [], "price": {"micros": 0, "currency": "EUR"}},
		tool,
	),
}

asked(call) := {[need.id, need.quorum, need.roles] | some need in needs} if {
	needs := rules.require with input as call with data.house.escalation as settings
}

denied(call, with_settings) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as call with data.house.escalation as with_settings
}

test_a_plain_call_goes_to_nobody if asked(request({})) == set()

test_cost if {
	asked(request({"price": {"micros": 500000}})) == set()
	asked(request({"price": {"micros": 500001}})) == {["escalation.cost", 1, ["budget-owner"]]}
}

test_a_price_in_another_currency if {
	asked(request({"price": {"micros": 1, "currency": "USD"}})) == {["escalation.cost", 1, ["budget-owner"]]}
	asked(request({"price": {"micros": 0, "currency": "USD"}})) == set()
}

test_personal_data if {
	asked(request({"labels": ["health"]})) == {["escalation.personal", 1, ["privacy"]]}
	asked(request({"labels": ["health"], "effect": "read"})) == set()
}

test_regulation if asked(request({"labels": ["sox"], "effect": "read"})) == {["escalation.regulatory", 2, ["compliance"]]}

test_a_call_that_is_several_of_these_needs_all_people if {
	ids := {entry[0] | some entry in asked(request({"labels": ["sox", "personal"], "price": {"micros": 9000000}}))}
	ids == {"escalation.cost", "escalation.personal", "escalation.regulatory"}
}

test_listing_is_not_concerned if asked(object.union(request({"labels": ["sox"]}), {"phase": "list"})) == set()

test_settings_that_cannot_be_read_deny_the_call if {
	every wrong in [
		null,
		{},
		object.union(settings, {"costs": 1}),
		object.remove(settings, ["personal"]),
		object.union(settings, {"cost": {"most": 1}}),
		object.union(settings, {"cost": {"most_micros": {"EUR": "5"}}}),
		object.union(settings, {"cost": {"most_micros": []}}),
		object.union(settings, {"cost": {"people": {"quorum": 0}}}),
		object.union(settings, {"personal": {"labels": "personal"}}),
		object.union(settings, {"personal": {"label": "personal"}}),
		object.union(settings, {"regulatory": {"effects": ["any"]}}),
		object.union(settings, {"regulatory": {"effects": "read"}}),
		object.union(settings, {"regulatory": {"people": []}}),
	] {
		denied(request({"labels": ["sox"], "price": {"micros": 1}}), wrong) == {"escalation.settings"}
	}
}

# Nothing else is known of these calls, not even whether the package is about them.
test_labels_that_cannot_be_read_deny_every_call if {
	every wrong in [null, [], {}, object.union(settings, {"personal": {"labels": "sox"}})] {
		denied(request({}), wrong) == {"escalation.settings"}
	}
}

test_missing_settings_deny_every_call if {
	{reason.id | some reason in rules.deny} == {"escalation.settings"} with input as request({})
		with data.house as {}
}
