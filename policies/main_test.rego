package gateway.tests.main

import data.gateway.main

request := {
	"phase": "call",
	"principal": {"kind": "agent", "id": "clerk"},
	"on_behalf_of": {"id": "dora", "groups": []},
	"agent": {"id": "clerk"},
	"run": {"id": "r", "calls": {"erp.pay": 1}, "sums": {}, "amounts": {}},
	"tool": {"server": "erp", "name": "pay", "fqn": "erp.pay", "effect": "money"},
}

test_reasons_stand_under_their_package if {
	main.decision.allow.authz == {{"id": "scope.granted", "msg": "the allow lists cover this tool"}} with input as request
		with data.gateway.scope as {"agents": {"clerk": {"allow": ["erp.*"]}}, "users": {"*": {"allow": ["erp.*"]}}}
}

test_denials_and_hints_are_gathered if {
	decision := main.decision with input as request
		with data.gateway.scope as {}
		with data.gateway.limits as {"erp.pay": {"calls_per_run": 1}}
	{reason.id | some reason in decision.deny.limits} == {"limits.calls_per_run"}
	{reason.id | some reason in decision.hint.authz} == {"scope.not_granted"}
}

test_every_part_is_there_though_no_package_exports_it if {
	decision := main.decision with input as request with data.gateway.scope as {}
	decision.require == {}
	decision.oblige == {"sandbox": set()}
}
