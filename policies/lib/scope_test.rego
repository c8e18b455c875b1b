package gateway.tests.lib_scope

import data.gateway.lib.scope

tool(effect) := {"tool": {"server": "erp", "name": "post.invoice", "fqn": "erp.post.invoice", "effect": effect}}

dora := {"id": "dora", "groups": ["ap", "finance"]}

test_the_person_who_calls if {
	scope.person.id == "dora" with input as {"principal": object.union(dora, {"kind": "person"})}
}

test_the_person_behind_an_agent if {
	scope.person.id == "dora" with input as {"principal": {"kind": "agent", "id": "clerk"}, "on_behalf_of": dora}
}

test_a_caller_of_another_kind_is_nobody if {
	unknown := {"principal": object.union(dora, {"kind": "other"}), "on_behalf_of": dora}
	lists := {"users": {"*": {"allow": ["*"]}}, "agents": {"*": {"allow": ["*"]}}}
	not scope.granted with input as object.union(unknown, tool("read")) with data.gateway.scope as lists
}

test_each_form_matches if {
	every pattern in ["erp.post.invoice", "erp.*", "*", "erp.post.*", "*.invoice", "{crm,erp}.*", "erp.post?invoice", "e*e"] {
		scope.matched([pattern]) with input as tool("read")
	}
}

test_other_names_do_not_match if {
	every pattern in ["erp.post", "ERP.*", "crm.*", "post.invoice", "", "erp.post.invoice2", "erp.post.invoic"] {
		not scope.matched([pattern]) with input as tool("read")
	}
}

test_any_pattern_of_a_list_matches if {
	every pattern in ["erp.*", "{crm,erp}.*", "erp.post.invoice"] {
		scope.matched(["crm.*", pattern, "x.y"]) with input as tool("read")
	}
	not scope.matched(["crm.*", "erp.read.*", "x.y"]) with input as tool("read")
}

test_each_joker_on_its_own if {
	every pattern in ["erp.post.invoic[ae]", "erp[.]post.invoice", "erp.post[!x]invoice", "er?.po??.{in,out}voice"] {
		scope.matched([pattern]) with input as tool("read")
	}
	every pattern in ["erp.post.invoic[!e]", "erp[!.]post.invoice", "erp?.post.invoice", "erpxpost.invoice", "erp.{a,b}"] {
		not scope.matched([pattern]) with input as tool("read")
	}
}

# What glob.match of OPA misses.
test_wildcards_in_alternatives if {
	every patterns in [["*erp_*", "*"], ["*erp*_.", "*"], ["{erp*,.}*post{*,a}"], ["*?.[bxe]*", "*"]] {
		scope.matched(patterns) with input as tool("read")
	}
}

test_empty_list_matches_nothing if not scope.matched([]) with input as tool("read")

test_wildcard_covers_all_but_money if {
	every effect in ["read", "write", "destructive"] {
		scope.covered(["*"]) with input as tool(effect)
	}
	not scope.covered(["*"]) with input as tool("money")
}

test_money_needs_the_server_by_name if {
	every pattern in ["erp.*", "erp.post.invoice", "erp.p*"] {
		scope.covered([pattern]) with input as tool("money")
	}
	every pattern in ["*.*", "e*", "{erp,crm}.*", "?rp.*", "crm.*", "{erp.*,crm.*}"] {
		not scope.covered([pattern]) with input as tool("money")
	}
}

test_unknown_effect_is_never_covered if not scope.covered(["*"]) with input as tool("other")

prompt := {"tool": {"server": "erp", "name": "prompts/letter", "fqn": "erp.prompts/letter", "effect": "destructive"}}

test_no_list_that_was_written_for_tools_covers_a_prompt if {
	every pattern in ["*", "erp.*", "erp.p*", "erp.prompts*", "*.prompts/*", "{crm,erp}.prompts/*", "crm.prompts/*"] {
		not scope.covered([pattern]) with input as prompt
	}
}

test_a_prompt_is_covered_by_its_own_entries if {
	every pattern in ["erp.prompts/*", "erp.prompts/letter", "erp.prompts/l?tter"] {
		scope.covered(["crm.*", pattern]) with input as prompt
	}
}

resource(address) := {"tool": {
	"server": "fs",
	"name": concat("", ["resources/", address]),
	"fqn": concat("", ["fs.resources/", address]),
	"effect": "read",
}}

test_no_list_that_was_written_for_tools_covers_a_resource_or_a_completion if {
	every pattern in ["*", "fs.*", "fs.r*", "*.resources/*", "fs.prompts/*", "fs.completions/*", "crm.resources/*"] {
		not scope.covered([pattern]) with input as resource("file:///etc/passwd")
	}
	completion := {"tool": {
		"server": "fs",
		"name": "completions/resources/file:///{path}",
		"fqn": "fs.completions/resources/file:///{path}",
		"effect": "read",
	}}
	every pattern in ["*", "fs.*", "fs.resources/*", "fs.prompts/*"] {
		not scope.covered([pattern]) with input as completion
	}
	scope.covered(["fs.completions/*"]) with input as completion
}

test_a_resource_that_may_be_read_is_not_followed_without_an_entry_for_that if {
	follows := {"tool": {
		"server": "fs",
		"name": "subscriptions/file:///etc/motd",
		"fqn": "fs.subscriptions/file:///etc/motd",
		"effect": "read",
	}}
	every pattern in ["*", "fs.*", "fs.resources/*", "fs.completions/*", "crm.subscriptions/*"] {
		not scope.covered([pattern]) with input as follows
	}
	every pattern in ["fs.subscriptions/*", "fs.subscriptions/file:///etc/*"] {
		scope.covered([pattern]) with input as follows
	}
}

test_a_resource_is_covered_by_its_own_entries if {
	every pattern in [
		"fs.resources/*", "fs.resources/file:///etc/*", "fs.resources/file:///etc/passwd", "fs.resources/{file,x}:///etc/*",
	] {
		scope.covered(["crm.*", pattern]) with input as resource("file:///etc/passwd")
	}
	scope.covered(["fs.resources/c++:*"]) with input as resource("c++://std")
}

test_a_resource_is_not_covered_by_entries_for_others if {
	every pattern in ["fs.resources/file:///etc/", "fs.resources/file:///var/*", "fs.resources/file:///etc/passwd/*"] {
		not scope.covered([pattern]) with input as resource("file:///etc/passwd")
	}

	# A plus is a plus, and no repetition of what stands before it.
	not scope.covered(["fs.resources/ab+:*"]) with input as resource("abb:x")
}

test_every_deny_list_takes_resources_too if {
	every pattern in ["*", "fs.*", "fs.resources/file:///etc/*", "fs.resources/*passwd"] {
		scope.matched([pattern]) with input as resource("file:///etc/passwd")
	}
}

test_every_deny_list_takes_prompts_too if {
	every pattern in ["*", "erp.*", "erp.prompts/*"] {
		scope.matched([pattern]) with input as prompt
	}
}

hook := {"tool": {"server": "coder", "name": "hooks/Bash", "fqn": "coder.hooks/Bash", "effect": "destructive"}}

test_what_an_agent_does_itself_needs_entries_of_its_own if {
	every pattern in ["*", "coder.*", "coder.hooks*", "*.hooks/*", "other.hooks/*", "coder.prompts/*"] {
		not scope.covered([pattern]) with input as hook
	}
	every pattern in ["coder.hooks/*", "coder.hooks/Bash"] {
		scope.covered(["erp.*", pattern]) with input as hook
		scope.matched([pattern]) with input as hook
	}
}

asked := {"tool": {"server": "erp", "name": "elicitation/order", "fqn": "erp.elicitation/order", "effect": "destructive"}}

test_what_an_upstream_asks_needs_an_entry_of_its_own if {
	every pattern in ["*", "erp.*", "erp.e*", "erp.prompts/*", "erp.sampling/*", "crm.elicitation/*"] {
		not scope.covered([pattern]) with input as asked
	}
	every pattern in ["erp.elicitation/*", "erp.elicitation/order"] {
		scope.covered(["erp.*", pattern]) with input as asked
	}
}
