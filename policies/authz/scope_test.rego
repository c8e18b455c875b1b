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

erp := {"allow": ["erp.*"]}

both(agent, group) := {"agents": {"clerk": agent}, "groups": {"finance": group}}

granted(request, lists) if {
	allowed := authz.allow with input as request with data.gateway.scope as lists
	ids(allowed) == {"scope.granted"}
}

denied(request, lists) if {
	reasons := authz.deny with input as request with data.gateway.scope as lists
	ids(reasons) == {"scope.denied"}
}

withheld(request, lists) if {
	allowed := authz.allow with input as request with data.gateway.scope as lists
	allowed == set()
}

undenied(request, lists) if {
	reasons := authz.deny with input as request with data.gateway.scope as lists
	reasons == set()
}

hinted(request, lists) := found if {
	found := authz.hint with input as request with data.gateway.scope as lists
}

clerk := agent_input("clerk", "read")

payer := agent_input("clerk", "money")

test_nothing_is_granted_without_data if {
	withheld(clerk, {})
	undenied(clerk, {})
	ids(hinted(clerk, {})) == {"scope.not_granted"}
}

test_granted_where_both_sides_cover if {
	granted(clerk, both(erp, erp))
	undenied(clerk, both(erp, erp))
	hinted(clerk, both(erp, erp)) == set()
}

test_one_side_alone_grants_nothing if {
	withheld(clerk, {"agents": {"clerk": erp}})
	withheld(clerk, {"groups": {"finance": erp}})
	withheld(clerk, {"users": {"dora": erp}})
	withheld(clerk, both(erp, {"allow": ["crm.*"]}))
	withheld(clerk, both({"allow": ["crm.*"]}, erp))
}

test_each_list_of_a_person_counts if {
	every lists in [{"users": {"dora": erp}}, {"users": {"*": erp}}, {"groups": {"ap": erp}}, {"groups": {"finance": erp}}] {
		granted(clerk, object.union({"agents": {"clerk": erp}}, lists))
	}
	every lists in [{"users": {"eve": erp}}, {"groups": {"crm": erp}}, {"groups": {"*": erp}}] {
		withheld(clerk, object.union({"agents": {"clerk": erp}}, lists))
	}
}

test_lists_of_one_person_add_up if {
	lists := {"users": {"dora": {"allow": ["crm.*"]}, "*": {"allow": ["time.*"]}}}
	granted(clerk, object.union(both(erp, erp), lists))
}

test_an_agent_without_an_entry_has_the_default_or_nothing if {
	everybody := {"users": {"*": {"allow": ["*"]}}}
	withheld(agent_input("other", "read"), object.union({"agents": {"clerk": erp}}, everybody))
	granted(agent_input("other", "read"), object.union({"agents": {"clerk": erp, "*": erp}}, everybody))
}

test_an_entry_of_its_own_replaces_the_default if {
	every own in [{"allow": []}, {"deny": []}, {}, {"allow": ["crm.*"]}] {
		withheld(clerk, {"agents": {"clerk": own, "*": erp}, "users": {"*": erp}})
	}
}

test_both_phases_read_the_same_lists if {
	every phase in ["list", "call"] {
		granted(object.union(clerk, {"phase": phase}), both(erp, erp))
	}
}

test_a_person_needs_their_own_side_only if {
	granted(person_input(["finance"]), {"groups": {"finance": erp}})
	granted(person_input([]), {"users": {"dora": erp}})
	withheld(person_input(["crm"]), {"groups": {"finance": erp}})
	withheld(person_input(["finance"]), {"agents": {"*": erp, "dora": erp}})
}

test_every_deny_list_counts if {
	every lists in [
		{"agents": {"clerk": {"deny": ["*.post"]}}},
		{"agents": {"*": {"deny": ["erp.*"]}}},
		{"users": {"dora": {"deny": ["erp.post"]}}},
		{"users": {"*": {"deny": ["erp.*"]}}},
		{"groups": {"ap": {"deny": ["e*"]}}},
		{"groups": {"ap": {"deny": ["crm.*"]}, "finance": {"deny": ["*"]}}},
	] {
		denied(clerk, lists)
	}
	every lists in [
		{"agents": {"clerk": {"deny": ["crm.*"]}, "other": {"deny": ["*"]}}},
		{"users": {"eve": {"deny": ["*"]}}, "groups": {"crm": {"deny": ["*"]}}},
	] {
		undenied(clerk, lists)
	}
}

test_deny_lists_of_agents_do_not_bind_persons if {
	undenied(person_input(["ap"]), {"agents": {"*": {"deny": ["*"]}}})
	denied(person_input(["ap"]), {"groups": {"ap": {"deny": ["*"]}}})
}

test_an_agents_deny_list_counts_though_nobody_stands_behind_it if {
	denied(object.remove(clerk, ["on_behalf_of"]), {"agents": {"clerk": {"deny": ["*"]}}})
}

test_money_needs_its_server_by_name_on_both_sides if {
	named := {"allow": ["erp.post"]}
	any_tool := {"allow": ["*"]}
	granted(payer, both(named, named))
	every lists in [both(named, any_tool), both(any_tool, named), both(any_tool, any_tool)] {
		withheld(payer, lists)
	}
}

test_money_by_wildcard_says_on_which_side if {
	lacking := hinted(payer, both({"allow": ["*"]}, erp))
	ids(lacking) == {"scope.not_granted", "scope.money_by_wildcard"}
	facts(lacking) == {"data.gateway.scope.agents.clerk.allow"}
	other := hinted(payer, both(erp, {"allow": ["*"]}))
	ids(other) == {"scope.not_granted", "scope.money_by_wildcard"}
	facts(other) == {"data.gateway.scope.groups.ap.allow"}
}

test_a_wildcard_that_lacks_nothing_but_the_tool_is_no_money_hint if {
	ids(hinted(payer, both({"allow": ["crm.*"]}, {"allow": ["crm.*"]}))) == {"scope.not_granted"}
}

test_hints_name_the_list_of_each_side_that_is_missing if {
	agent_path := "data.gateway.scope.agents.clerk.allow"
	group_path := "data.gateway.scope.groups.ap.allow"
	facts(hinted(clerk, {})) == {agent_path, group_path}
	facts(hinted(clerk, {"agents": {"clerk": erp}})) == {group_path}
	facts(hinted(clerk, {"groups": {"finance": erp}})) == {agent_path}
}

test_hint_of_a_person_without_groups if {
	facts(hinted(person_input([]), {})) == {"data.gateway.scope.users.dora.allow"}
}
