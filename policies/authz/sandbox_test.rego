package gateway.tests.authz_sandbox

import data.gateway.policies.sandbox as rules

request(phase, connector) := {"phase": phase, "tool": {"fqn": "code.run", "connector": connector}}


test_nothing_may_be_missing if {
	rules.oblige == {{"id": "sandbox.accept_missing", "kind": "sandbox", "accept_missing": []}} with input as request("call", "code")
		with data.gateway.sandbox as {}
}

test_what_the_operator_accepts if {
	some item in rules.oblige with input as request("call", "code")
		with data.gateway.sandbox as {"accept_missing": ["memory", "pids"]}
	item.accept_missing == ["memory", "pids"]
}

test_other_tools_are_not_bound if {
	rules.oblige == set() with input as request("call", "sql")
}

test_listing_is_not_bound if {
	rules.oblige == set() with input as request("list", "code")
}
