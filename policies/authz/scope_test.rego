package gateway.tests.authz_scope

import data.gateway.policies.authz

agent_input(agent, effect) := {
	"phase": "call",
	"principal": {"kind": "agent", "id": agent},
	"on_behalf_of": {"id": "dora", "groups": ["ap", "finance"]},
	"agent": {"id": agent},
	"tool": {"server": "erp", "name": "post", "fqn": "erp.post", "effect": effect},
}

person_input(groups) := {
	"phase": "list",
	"principal": {"kind": "person", "id": "dora", "groups": groups},
	"tool": {"server": "erp", "name": "post", "fqn": "erp.post", "effect": "write"},
}

ids(reasons) := {reason.id | some reason in reasons}

facts(reasons) := {reason.fact | some reason in reasons}

test_nothing_is_granted_without_data if {
	authz.allow == set() with input as agent_input("clerk", "read") with data.gateway.scope as {}
	ids(authz.hint) == {"scope.not_granted"} with input as agent_input("clerk", "read") with data.gateway.scope as {}
}

test_agent_list_grants if {
	lists := {"agents": {"clerk": {"allow": ["erp.*"]}}}
	ids(authz.allow) == {"scope.granted"} with input as agent_input("clerk", "read") with data.gateway.scope as lists
	authz.hint == set() with input as agent_input("clerk", "read") with data.gateway.scope as lists
	authz.deny == set() with input as agent_input("clerk", "read") with data.gateway.scope as lists
}

test_agent_list_is_the_agents_own if {
	lists := {"agents": {"other": {"allow": ["erp.*"]}}}
	authz.allow == set() with input as agent_input("clerk", "read") with data.gateway.scope as lists
}

test_both_phases_read_the_same_lists if {
	lists := {"agents": {"clerk": {"allow": ["erp.*"]}}}
	every phase in ["list", "call"] {
		request := object.union(agent_input("clerk", "read"), {"phase": phase})
		ids(authz.allow) == {"scope.granted"} with input as request with data.gateway.scope as lists
	}
}

test_group_grants_an_agent_without_a_list if {
	lists := {"groups": {"finance": {"allow": ["erp.post"]}}}
	ids(authz.allow) == {"scope.granted"} with input as agent_input("clerk", "read") with data.gateway.scope as lists
}

test_own_list_bounds_an_agent_whatever_its_user_may_do if {
	lists := {"agents": {"clerk": {"allow": ["crm.*"]}}, "groups": {"finance": {"allow": ["erp.*"]}}}
	authz.allow == set() with input as agent_input("clerk", "read") with data.gateway.scope as lists
}

test_empty_own_list_grants_nothing if {
	lists := {"agents": {"clerk": {"allow": []}}, "groups": {"finance": {"allow": ["erp.*"]}}}
	authz.allow == set() with input as agent_input("clerk", "read") with data.gateway.scope as lists
}

test_own_deny_list_alone_is_no_bound if {
	lists := {"agents": {"clerk": {"deny": ["crm.*"]}}, "groups": {"finance": {"allow": ["erp.*"]}}}
	ids(authz.allow) == {"scope.granted"} with input as agent_input("clerk", "read") with data.gateway.scope as lists
}

test_group_grants_a_person if {
	lists := {"groups": {"ap": {"allow": ["erp.*"]}}}
	ids(authz.allow) == {"scope.granted"} with input as person_input(["ap"]) with data.gateway.scope as lists
	authz.allow == set() with input as person_input(["crm"]) with data.gateway.scope as lists
}

test_deny_list_of_the_agent if {
	lists := {"agents": {"clerk": {"allow": ["*"], "deny": ["*.post"]}}}
	ids(authz.deny) == {"scope.denied"} with input as agent_input("clerk", "read") with data.gateway.scope as lists
}

test_deny_list_of_a_group_binds_its_agents if {
	lists := {"agents": {"clerk": {"allow": ["*"]}}, "groups": {"ap": {"deny": ["erp.*"]}}}
	ids(authz.deny) == {"scope.denied"} with input as agent_input("clerk", "read") with data.gateway.scope as lists
}

test_money_by_wildcard_is_not_granted_and_says_so if {
	lists := {"agents": {"clerk": {"allow": ["*"]}}}
	authz.allow == set() with input as agent_input("clerk", "money") with data.gateway.scope as lists
	found := ids(authz.hint) with input as agent_input("clerk", "money") with data.gateway.scope as lists
	found == {"scope.not_granted", "scope.money_by_wildcard"}
}

test_money_by_wildcard_of_a_group if {
	lists := {"groups": {"ap": {"allow": ["*"]}}}
	found := ids(authz.hint) with input as agent_input("clerk", "money") with data.gateway.scope as lists
	found == {"scope.not_granted", "scope.money_by_wildcard"}
}

test_money_by_name if {
	lists := {"agents": {"clerk": {"allow": ["erp.post"]}}}
	ids(authz.allow) == {"scope.granted"} with input as agent_input("clerk", "money") with data.gateway.scope as lists
	authz.hint == set() with input as agent_input("clerk", "money") with data.gateway.scope as lists
}

test_hint_names_the_agents_list if {
	found := facts(authz.hint) with input as agent_input("clerk", "read") with data.gateway.scope as {}
	found == {"data.gateway.scope.agents.clerk.allow"}
}

test_hint_names_the_persons_group if {
	found := facts(authz.hint) with input as person_input(["ops", "ap"]) with data.gateway.scope as {}
	found == {"data.gateway.scope.groups.ap.allow"}
}

test_hint_of_a_person_without_groups if {
	found := facts(authz.hint) with input as person_input([]) with data.gateway.scope as {}
	found == {"data.gateway.scope.groups"}
}
