package gateway.tests.authz_approval

import data.gateway.policies.approval as rules

request(effect) := {
	"phase": "call",
	"principal": {"kind": "agent", "id": "clerk"},
	"agent": {"id": "clerk"},
	"tool": {"server": "pay", "name": "transfer", "fqn": "pay.transfer", "effect": effect},
}

asked(effect, settings) := {[need.quorum, need.roles] | some need in needs} if {
	needs := rules.require with input as request(effect) with data.gateway.approval as settings
}

denied(effect, settings) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as request(effect) with data.gateway.approval as settings
}

test_money_needs_a_person if asked("money", {}) == {[1, []]}

test_nothing_else_does_by_itself if {
	every effect in ["read", "write", "destructive"] {
		asked(effect, {}) == set()
		denied(effect, {}) == set()
	}
}

test_a_class_has_a_rule if asked("destructive", {"effects": {"destructive": {"quorum": 2}}}) == {[2, []]}

test_a_tools_own_rule_wins if {
	settings := {"tools": {"pay.transfer": {"roles": ["treasurer"]}}, "effects": {"money": {"quorum": 3}}}
	asked("money", settings) == {[1, ["treasurer"]]}
}

test_the_full_name_lets_a_tool_go_alone if asked("money", {"unattended": ["pay.transfer"]}) == set()

test_no_pattern_lets_a_tool_go_alone if asked("money", {"unattended": ["pay.*", "*", "pay"]}) == {[1, []]}

test_a_rule_for_money_is_the_only_one if asked("money", {"effects": {"money": {"quorum": 2}}}) == {[2, []]}

test_what_cannot_be_read_denies if {
	every settings in [
		{"tools": {"pay.transfer": false}},
		{"tools": {"pay.transfer": {"quorum": 0}}},
		{"tools": {"pay.transfer": {"quorum": 1.5}}},
		{"tools": {"pay.transfer": {"quorum": "two"}}},
		{"tools": {"pay.transfer": {"people": 2}}},
		{"tools": {"pay.transfer": {"roles": "treasurer"}}},
		{"tools": {"pay.transfer": {"roles": [7]}}},
		{"tools": {"pay.transfer": {"ttl_s": -1}}},
		{"effects": {"money": []}},
		{"tools": []},
		{"effects": 7},
		{"unattended": "pay.transfer"},
		{"unatended": ["pay.transfer"]},
		false,
		[],
	] {
		denied("money", settings) == {"approval.malformed"}
	}
}

test_listing_asks_nobody if {
	listed := object.union(request("money"), {"phase": "list"})
	rules.require == set() with input as listed with data.gateway.approval as {}
	rules.deny == set() with input as listed with data.gateway.approval as false
}

made(address) := object.union(request("read"), {"tool": {
	"server": "crm",
	"name": concat("", ["resources/", address]),
	"fqn": concat("", ["crm.resources/", address]),
	"template": "resources/crm://{id}",
}})

test_what_is_made_of_a_template_falls_under_its_rule if {
	settings := {"tools": {"crm.resources/crm://{id}": {"quorum": 2}, "crm.resources/crm://7": {"quorum": 3}}}
	eight := rules.require with input as made("crm://8") with data.gateway.approval as settings
	seven := rules.require with input as made("crm://7") with data.gateway.approval as settings
	{need.quorum | some need in eight} == {2}
	{need.quorum | some need in seven} == {3}
	none := rules.require with input as made("crm://8") with data.gateway.approval as {}
	none == set()
}
