# METADATA
# title: Verify only
# description: >-
#   Agents that may look and check but never change anything, from data.house.verify_only: for them a tool is there only
#   if it reads, or if it writes and is listed as a check. Other tools are hidden from them, not merely refused. Tools
#   that destroy or move money are never checks. Nothing is allowed here.
# custom:
#   data: data.house.verify_only
#   exports: [deny]
#   ids:
#     - verify_only.settings
#     - verify_only.change
package gateway.policies.verify_only

deny contains {
	"id": "verify_only.settings",
	"msg": "data.house.verify_only is missing or cannot be read, so no call is allowed until it can",
	"fact": "data.house.verify_only",
} if {
	concerned
	not sound
}

deny contains {
	"id": "verify_only.change",
	"msg": sprintf("this agent looks and checks, and %s changes something", [input.tool.fqn]),
	"fact": "data.house.verify_only.checks",
} if {
	concerned
	sound
	not harmless
}

# The first condition of every rule above: of calls that it does not concern, this package has no say.
concerned if {
	input.phase == "call"
	not sound
}

concerned if {
	sound
	data.gateway.lib.settings.covers(data.house.verify_only.agents, input.agent.id)
}

harmless if input.tool.effect == "read"

harmless if {
	sound
	input.tool.effect == "write"
	data.gateway.lib.scope.matched(data.house.verify_only.checks)
}

sound if {
	settings := data.house.verify_only
	data.gateway.lib.settings.known(settings, {"agents", "checks"})
	data.gateway.lib.settings.patterns(settings.agents)
	is_array(settings.checks)
	data.gateway.lib.settings.patterns(array.concat(settings.checks, ["x"]))
}
