package gateway.tests.payments

import data.gateway.policies.payments as rules

settings := {
	"tools": ["bank.pay", "bank.transfer_*"],
	"measure": "amount",
	"currencies": {"EUR": {"per_call": 1000, "per_run": 2500, "autopilot": 10, "second": 250}},
	"roles": ["treasurer"],
	"hours": {"zone": "Europe/Zurich", "days": ["Monday", "Tuesday"], "from": 8, "to": 18},
}

# Monday, 2 February 2026, 09:30 in Zurich.
monday := 1770021000000000

hour := 3600000000

request(amounts) := {
	"phase": "call",
	"time": {"us": monday},
	"tool": {"fqn": "bank.pay", "effect": "money"},
	"run": {"calls": {}, "sums": {}, "amounts": amounts},
}

euros(amount) := request({"amount.EUR": amount})

denied(call, with_settings) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as call with data.house.payments as with_settings
}

asked(amount) := {[need.id, object.get(need, "quorum", 1), need.roles] | some need in needs} if {
	needs := rules.require with input as euros(amount) with data.house.payments as settings
}

test_a_small_payment_goes_alone if {
	denied(euros(10), settings) == set()
	asked(10) == set()
}

test_a_larger_one_needs_a_person if asked(11) == {["payments.approval", 1, ["treasurer"]]}

test_a_large_one_needs_two if {
	asked(250) == {["payments.approval", 1, ["treasurer"]]}
	asked(251) == {["payments.approval", 1, ["treasurer"]], ["payments.second_signature", 2, ["treasurer"]]}
}

test_cap_of_a_call if {
	denied(euros(1000), settings) == set()
	denied(euros(1001), settings) == {"payments.cap_per_call"}
}

test_cap_of_a_run_counts_all_tools_that_pay if {
	denied(after(100), settings) == set()
	denied(after(101), settings) == {"payments.cap_per_run"}
}

after(amount) := object.union(euros(amount), {"run": {"sums": past}})

past := {"bank.pay": {"amount.EUR": 1000}, "bank.transfer_abroad": {"amount.EUR": 1400}, "erp.post": {"amount.EUR": 9}}

test_an_amount_that_cannot_be_counted if {
	every amounts in [
		{"amount.EUR": 5, "amount.USD": 10000000},
		{"amount.EUR": 5, "amount": 10000000},
		{}, {"amount.USD": 5}, {"amount.EUR": "9007199254740993"}, {"amount.EUR": -1}, {"amount": 5},
	] {
		denied(request(amounts), settings) == {"payments.amount"}
	}
}

test_a_past_that_cannot_be_counted if {
	huge := object.union(euros(5), {"run": {"sums": {"bank.pay": {"amount.EUR": "9007199254740993"}}}})
	denied(huge, settings) == {"payments.amount"}
	denied(object.union(euros(5), {"run": {"sums": null}}), settings) == {"payments.amount"}
}

test_office_hours if {
	denied(at(monday - (2 * hour)), settings) == {"payments.office_hours"}
	denied(at(monday + (9 * hour)), settings) == {"payments.office_hours"}
	denied(at(monday + (8 * hour)), settings) == set()
	denied(at(monday + (48 * hour)), settings) == {"payments.office_hours"}
}

at(us) := object.union(euros(5), {"time": {"us": us}})

test_without_hours_any_time_will_do if {
	denied(at(monday + (48 * hour)), object.remove(settings, ["hours"])) == set()
}

split := object.union(settings, {"currencies": {"EUR": {"alone_per_run": 1500}}})

ids(call, with_settings) := {need.id | some need in needs} if {
	needs := rules.require with input as call with data.house.payments as with_settings
}

paid(amount) := object.union(euros(10), {"run": {"sums": {"bank.pay": {"amount.EUR": amount}}}})

test_many_small_payments_are_no_way_around_people if {
	ids(paid(1490), split) == set()
	ids(paid(1491), split) == {"payments.split"}
	ids(paid(1491), settings) == set()
}

test_working_days_are_written_out if {
	wrong := object.union(settings, {"hours": {"days": ["Mon"]}})
	denied(euros(5), wrong) == {"payments.settings"}
}

test_other_tools_are_not_concerned if {
	other := object.union(euros(100000), {"tool": {"fqn": "bank.balance"}})
	denied(other, settings) == set()
	rules.require == set() with input as other with data.house.payments as settings
}

test_listing_is_not_concerned if denied(object.union(euros(100000), {"phase": "list"}), settings) == set()

test_settings_that_cannot_be_read_deny_the_call if {
	every wrong in [
		null,
		[],
		{},
		object.remove(settings, ["measure"]),
		object.union(settings, {"tool": "bank.*"}),
		object.union(settings, {"tools": "bank.*"}),
		object.union(settings, {"tools": []}),
		object.union(settings, {"roles": "treasurer"}),
		object.union(settings, {"currencies": []}),
		object.union(settings, {"currencies": {"euro": {}}}),
		object.union(settings, {"currencies": {"EUR": {"second": 5}}}),
		object.union(settings, {"currencies": {"EUR": {"per_call": "1000"}}}),
		object.union(settings, {"currencies": {"EUR": {"per_week": 1}}}),
		object.union(settings, {"hours": {"from": 18}}),
		object.union(settings, {"hours": {"to": 25}}),
		object.union(settings, {"hours": {"zone": 7}}),
		object.union(settings, {"hours": {"days": "Monday"}}),
		object.union(settings, {"hours": false}),
		object.union(settings, {"currencies": {"EUR": {"alone_per_run": "1"}}}),
	] {
		denied(euros(5), wrong) == {"payments.settings"}
	}
}

# Nothing else is known of these calls, not even whether the package is about them.
test_tools_that_cannot_be_read_deny_every_call if {
	every wrong in [null, [], {}, object.union(settings, {"tools": []}), object.union(settings, {"tools": [7]})] {
		denied(object.union(euros(5), {"tool": {"fqn": "any.tool"}}), wrong) == {"payments.settings"}
	}
}

test_missing_settings_deny_every_call if {
	{reason.id | some reason in rules.deny} == {"payments.settings"} with input as euros(5)
		with data.house as {}
}
