# METADATA
# title: Scope lists
# description: >-
#   Lists stand in data.gateway.scope {agents: {ID: LISTS}, users: {ID: LISTS}, groups: {NAME: LISTS}}, where LISTS is
#   {allow, deny}. A pattern is a tool's name (server.tool) with * for any characters, ? for one, [ab] and {a,b}; dots
#   are no border. What an agent may do for a person is what both may: its own allow list covers the tool, and so does
#   one of the person's: their own, that of everybody (users["*"]) or that of one of their groups. A person with their
#   own token needs no agent's list. An agent without an entry has agents["*"], or nothing. Every deny list counts. A
#   prompt is server.prompts/NAME, a resource server.resources/ADDRESS, what completes one of them server.completions/ and
#   the rest of its name, what follows a resource server.subscriptions/ADDRESS, what a coding agent does itself
#   server.hooks/NAME, what an upstream asks of a client during a call server.elicitation/TOOL, server.sampling/TOOL or
#   server.roots/TOOL; an allow entry covers it only where the entry itself begins so.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.scope

# Refer to these rules by their full path: the engine evaluates every rule of a package that is imported.

# Always from the verified credential, never from arguments: the caller, or the person behind the calling agent.
person := input.principal if input.principal.kind == "person"

person := input.on_behalf_of if input.principal.kind == "agent"

lists := data.gateway.scope

# An agent with an entry of its own is not given the default's.
agent_list := lists.agents[input.agent.id].allow

agent_list := lists.agents["*"].allow if not lists.agents[input.agent.id]

entries := array.concat(
	[entry | some name in [person.id, "*"]; entry := lists.users[name]],
	[entry | some name in person.groups; entry := lists.groups[name]],
)

person_list := [pattern | some entry in entries; some pattern in entry.allow]

# A person is no agent, and no agent's list binds them.
deny_list := array.concat(
	[pattern | some id in [input.agent.id, "*"]; some pattern in lists.agents[id].deny],
	[pattern | some entry in entries; some pattern in entry.deny],
)

granted if {
	agent_granted
	person_granted
}

agent_granted if covered(agent_list)

agent_granted if input.principal.kind == "person"

person_granted if covered(person_list)

denied if matched(deny_list)

# A list that covers the tool but may not, as no entry of it that does names the server of a tool that moves money.
agent_lacks_server if {
	input.tool.effect == "money"
	matched(agent_list)
}

person_lacks_server if {
	input.tool.effect == "money"
	matched(person_list)
}

# covered is matched for allow lists: a tool that moves money needs an entry that begins with the name of its server, so
# that a wildcard over everything, written before the tool was connected, never gives money away.
covered(patterns) if {
	input.tool.effect in {"read", "write", "destructive"}
	matched(meant(patterns))
} else if {
	input.tool.effect == "money"
	matched([pattern | some pattern in meant(patterns); startswith(pattern, concat("", [input.tool.server, "."]))])
}

# meant is the entries that speak of the kind that is asked for. What is no tool (server.prompts/NAME ...) needs an entry
# that begins so, as lists that were written for tools gave none of what else a server offers or asks, nor of what an
# agent does itself (server.hooks/NAME). Deny lists count as they stand.
meant(patterns) := [pattern | some pattern in patterns; startswith(pattern, prefix)] if {
	some kind in ["prompts/", "resources/", "completions/", "subscriptions/", "hooks/", "elicitation/", "sampling/", "roots/"]
	startswith(input.tool.name, kind)
	prefix := concat("", [input.tool.server, ".", kind])
} else := patterns

# Of glob.match it is not known what it says: OPA's own loses matches of some alternations with wildcards, so that a deny
# list would not bind. A pattern is turned into a regular expression, all patterns of a list into one, as each costs.
matched(patterns) if regex.match(concat("", ["(?s)^(?:", alternation(concat(",", patterns)), ")$"]), input.tool.fqn)

# [!ab] is [^ab], a dot is a dot, * is any characters, ? is one, {a,b} and the list itself are alternatives.
alternation(text) := replace(replace(replace(jokers(text), "{", "(?:"), "}", ")"), ",", "|")

jokers(text) := replace(replace(replace(replace(plain(text), "[!", "[^"), ".", "\\."), "*", ".*"), "?", ".")

plain(text) := replace(text, "+", "\\+")

# Where an entry would have to stand: in the agent's own list, and in that of the person's first group or their own.
agent_path := sprintf("data.gateway.scope.agents.%s.allow", [input.agent.id])

person_path := sprintf("data.gateway.scope.groups.%s.allow", [min(person.groups)]) if count(person.groups) > 0

person_path := sprintf("data.gateway.scope.users.%s.allow", [person.id]) if count(person.groups) == 0
