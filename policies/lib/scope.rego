# METADATA
# title: Scope lists
# description: >-
#   Lists stand in data.gateway.scope {agents: {ID: {allow, deny}}, groups: {NAME: {allow, deny}}}. A pattern is a tool's
#   name (server.tool) with * for any characters, ? for one, [ab] and {a,b}; dots are no border, a comma separates.
#   An agent that has an allow list of its own is bounded by it, whatever its user may do; an agent without one, and a
#   person calling themselves, has the lists of the person's groups. Deny lists of agent and groups always count.
package gateway.lib.scope

# Refer to these rules by their full path: the engine evaluates every rule of a package that is imported.

own := data.gateway.scope.agents[input.agent.id]

# Groups always come from the person's credential, never from arguments: the caller's own, or the person's behind it.
groups := object.get(input, ["on_behalf_of", "groups"], object.get(input, ["principal", "groups"], []))

granted if covered(own.allow)

granted if {
	not own.allow
	some group in groups
	covered(data.gateway.scope.groups[group].allow)
}

# An entry that covers the tool but may not, as it moves money and the entry does not name its server.
granted_but_for_money if {
	input.tool.effect == "money"
	matched(own.allow)
}

granted_but_for_money if {
	input.tool.effect == "money"
	not own.allow
	some group in groups
	matched(data.gateway.scope.groups[group].allow)
}

denied if matched(own.deny)

denied if {
	some group in groups
	matched(data.gateway.scope.groups[group].deny)
}

# covered is matched for allow lists: a tool that moves money needs an entry that begins with the name of its server, so
# that a wildcard over everything, written before the tool was connected, never gives money away.
covered(patterns) if {
	input.tool.effect in {"read", "write", "destructive"}
	matched(patterns)
}

covered(patterns) if {
	input.tool.effect == "money"
	server := concat("", [input.tool.server, "."])
	matched([pattern | some pattern in patterns; startswith(pattern, server)])
}

# One alternation of all patterns: a match costs the engine as much as twenty comparisons.
matched(patterns) if {
	count(patterns) > 0
	glob.match(concat("", ["{", concat(",", patterns), "}"]), null, input.tool.fqn)
}

# The list that would have to cover the tool: the agent's own, or that of the person's first group.
missing_list := sprintf("data.gateway.scope.agents.%s.allow", [input.agent.id])

missing_list := sprintf("data.gateway.scope.groups.%s.allow", [min(groups)]) if {
	input.principal.kind == "person"
	count(groups) > 0
}

missing_list := "data.gateway.scope.groups" if {
	input.principal.kind == "person"
	count(groups) == 0
}
