package gateway.tests.authz_limits

import data.gateway.policies.limits as rules

request(run) := {
	"phase": "call",
	"principal": {"kind": "agent", "id": "clerk"},
	"agent": {"id": "clerk"},
	"run": object.union({"id": "r", "calls": {}, "sums": {}, "amounts": {}}, run),
	"tool": {"server": "erp", "name": "pay", "fqn": "erp.pay", "effect": "money"},
}

calls(n) := {"calls": {"erp.pay": n}}

three_calls := {"erp.pay": {"calls_per_run": 3}}

euros := {"erp.pay": {"sums_per_run": {"amount.EUR": 500000}}}

denied(run, limits) := {reason.id | some reason in reasons} if {
	reasons := rules.deny with input as request(run) with data.gateway.limits as limits
}

test_no_limits_no_denial if denied(calls(1000), {}) == set()

test_limits_of_another_tool if denied(calls(1000), {"erp.other": {"calls_per_run": 1}}) == set()

test_the_last_call_that_fits if denied(calls(2), three_calls) == set()

test_the_first_call_of_a_run if denied({}, three_calls) == set()

test_one_call_too_many if denied(calls(3), three_calls) == {"limits.calls_per_run"}

test_calls_of_other_tools_do_not_count if denied({"calls": {"erp.other": 9}}, three_calls) == set()

test_limit_of_zero if denied({}, {"erp.pay": {"calls_per_run": 0}}) == {"limits.calls_per_run"}

test_listing_ignores_the_run if {
	listed := object.union(request(calls(3)), {"phase": "list"})
	rules.deny == set() with input as listed with data.gateway.limits as three_calls
}

test_calls_denial_says_what_and_where if {
	reasons := rules.deny with input as request(calls(3)) with data.gateway.limits as three_calls
	some reason in reasons
	reason.fact == "data.gateway.limits.erp.pay.calls_per_run"
	contains(reason.msg, "3 calls of erp.pay a run are allowed; 3 were made")
}

test_sum_that_just_fits if {
	denied({"sums": {"erp.pay": {"amount.EUR": 400000}}, "amounts": {"amount.EUR": 100000}}, euros) == set()
}

test_sum_too_high if {
	run := {"sums": {"erp.pay": {"amount.EUR": 400000}}, "amounts": {"amount.EUR": 100001}}
	denied(run, euros) == {"limits.sum_per_run"}
}

test_first_amount_too_high if denied({"amounts": {"amount.EUR": 500001}}, euros) == {"limits.sum_per_run"}

test_amount_missing if denied({"amounts": {}}, euros) == {"limits.amount_missing"}

test_amounts_missing_altogether if {
	absent := object.remove(request({}).run, ["amounts"])
	reasons := rules.deny with input as object.union(object.remove(request({}), ["run"]), {"run": absent})
		with data.gateway.limits as euros
	{reason.id | some reason in reasons} == {"limits.amount_missing"}
}

test_amount_that_cannot_be_counted if {
	every amount in [-1, "100", "9007199254740993", null] {
		denied({"amounts": {"amount.EUR": amount}}, euros) == {"limits.amount_missing"}
	}
}

test_unlisted_currency if denied({"amounts": {"amount.USD": 1}}, euros) == {"limits.measure_not_listed"}

test_measure_of_another_name_is_free if {
	denied({"amounts": {"amount.EUR": 1, "lines": 99}}, euros) == set()
}

test_limit_that_is_no_number if {
	every limits in [{"calls_per_run": "3"}, {"sums_per_run": 5}, {"sums_per_run": {"amount.EUR": "5"}}, {"call_per_run": 1}] {
		"limits.malformed" in denied({"amounts": {"amount.EUR": 1}}, {"erp.pay": limits})
	}
}

test_ledger_missing if {
	bare := object.union(object.remove(request({}), ["run"]), {"run": {"id": "r"}})
	reasons := rules.deny with input as bare with data.gateway.limits as three_calls
	{reason.id | some reason in reasons} == {"limits.malformed"}
}

test_sum_beyond_exact_integers if {
	run := {"sums": {"erp.pay": {"amount.EUR": "9007199254740993"}}, "amounts": {"lines": 1}}
	"limits.malformed" in denied(run, euros)
}

test_what_an_agent_does_itself_cannot_be_limited if {
	run := {"id": "r", "calls": {}, "sums": {}, "amounts": {}}
	tool := {"server": "erp", "name": "pay", "fqn": "erp.pay", "effect": "money", "connector": "hook"}
	asked := object.union(request({}), {"run": run, "tool": tool})
	reasons := rules.deny with input as asked with data.gateway.limits as three_calls
	{reason.id | some reason in reasons} == {"limits.uncounted"}
}

test_what_is_made_of_a_template_counts_for_it if {
	made := object.union(
		request({"calls": {"crm.resources/crm://{id}": 3}}),
		{"tool": {
			"server": "crm",
			"name": "resources/crm://7",
			"fqn": "crm.resources/crm://7",
			"template": "resources/crm://{id}",
		}},
	)
	limits := {"crm.resources/crm://{id}": {"calls_per_run": 3}}
	reasons := rules.deny with input as made with data.gateway.limits as limits
	{reason.id | some reason in reasons} == {"limits.calls_per_run"}
}
