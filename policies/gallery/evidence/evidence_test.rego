package gateway.tests.evidence

import data.gateway.policies.evidence as rules

settings := {"rules": {"payments": {
	"tools": ["bank.pay"],
	"needs": {"the vendor was looked up": ["vendors.*"], "the order was found": ["erp.find_order"]},
}}}

pay := {"phase": "call", "tool": {"fqn": "bank.pay", "effect": "money"}}

naming(tools) := object.union(pay, {"evidence": [{"call_id": tool, "tool": tool} | some tool in tools]})

denied(call, with_settings) := {[reason.id, contains(reason.msg, "vendor")] | some reason in reasons} if {
	reasons := rules.deny with input as call with data.house.evidence as with_settings
}

test_every_need_is_met if denied(naming(["vendors.verify", "erp.find_order", "erp.other"]), settings) == set()

test_one_need_is_not if {
	denied(naming(["erp.find_order"]), settings) == {["evidence.missing", true]}
	denied(naming(["vendors.find", "vendors.find"]), settings) == {["evidence.missing", false]}
}

test_no_evidence_at_all if {
	every call in [pay, naming([]), naming(["erp.find", "xvendors.find"])] {
		denied(call, settings) == {["evidence.missing", true], ["evidence.missing", false]}
	}
}

test_what_is_not_concerned if {
	every other in [{"tool": {"fqn": "bank.balance"}}, {"phase": "list"}] {
		denied(object.union(pay, other), settings) == set()
	}
}

test_settings_that_cannot_be_read_deny_the_call if {
	every wrong in [
		null,
		{},
		{"rules": []},
		object.union(settings, {"more": 1}),
		object.union(settings, {"rules": {"payments": {"tools": []}}}),
		object.union(settings, {"rules": {"payments": {"need": {}}}}),
		object.union(settings, {"rules": {"payments": {"needs": []}}}),
		{"rules": {"payments": {"tools": ["bank.pay"], "needs": {}}}},
		object.union(settings, {"rules": {"payments": {"needs": {"more": "vendors.*"}}}}),
	] {
		denied(pay, wrong) == {["evidence.settings", false]}
	}
}

# Nothing else is known of these calls, not even whether the package is about them.
test_tools_that_cannot_be_read_deny_every_call if {
	every wrong in [null, [], {}, {"rules": {"payments": {}}}, {"rules": {"payments": 7}}] {
		denied(object.union(pay, {"tool": {"fqn": "any.tool"}}), wrong) == {["evidence.settings", false]}
	}
}

test_missing_settings_deny_every_call if {
	{reason.id | some reason in rules.deny} == {"evidence.settings"} with input as pay
		with data.house as {}
}
