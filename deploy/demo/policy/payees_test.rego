package gateway.tests.payees

import data.gateway.policies.payees

transfer(iban) := {
	"phase": "call",
	"tool": {"fqn": "pay.transfer"},
	"args": {"iban": iban, "amount": 1, "currency": "EUR", "reference": "r"},
}

test_a_known_account_is_fine if {
	payees.deny == set() with input as transfer("DE02") with data.house.payees as {"V-7": "DE02"}
}

test_any_other_one_is_not if {
	count(payees.deny) == 1 with input as transfer("GB33") with data.house.payees as {"V-7": "DE02"}
}

test_without_a_list_nobody_is_paid if {
	count(payees.deny) == 1 with input as transfer("DE02") with data.house as {}
}
