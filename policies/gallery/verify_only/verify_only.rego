# METADATA
# title: Verify only
# description: >-
#   Agents that may look and check but change nothing by themselves, from data.house.verify_only. A tool that reads, or
#   that writes and is listed as a check, is theirs to use; with reads "ask" a person looks at these calls, too. Every
#   other tool is a change: with changes "hide" it is not there for them, with "ask" nothing is executed before a person
#   has looked. Tools that destroy or move money are never checks. Nothing is allowed here.
# custom:
#   data: data.house.verify_only
#   exports: [deny, require]
#   ids:
#     - verify_only.settings
#     - verify_only.change
#     - verify_only.ask
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.verify_only

import data.gateway.lib.settings as checks

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
	data.house.verify_only.changes == "hide"
	not harmless
}

require contains {
	"id": "verify_only.ask",
	"msg": sprintf("a person looks at what this agent wants of %s before it is done", [input.tool.fqn]),
	"quorum": object.get(people, "quorum", 1),
	"roles": object.get(people, "roles", []),
	"ttl_s": object.get(people, "ttl_s", 86400),
	"exclude": ["requester"],
} if {
	concerned
	input.phase == "call"
	to_be_seen
	people := data.house.verify_only.people
}

# The first condition of every rule above: of calls that it does not concern, this package has no say.
concerned if {
	input.phase == "call"
	not sound
}

concerned if {
	sound
	checks.covers(data.house.verify_only.agents, input.agent.id)
}

harmless if input.tool.effect == "read"

harmless if {
	sound
	input.tool.effect == "write"
	data.gateway.lib.scope.matched(data.house.verify_only.checks)
}

to_be_seen if {
	sound
	data.house.verify_only.changes == "ask"
	not harmless
}

to_be_seen if {
	sound
	data.house.verify_only.reads == "ask"
	harmless
}

sound if {
	settings := data.house.verify_only
	checks.known(settings, {"agents", "checks", "changes", "reads", "people"})
	settings.changes in {"hide", "ask"}
	settings.reads in {"free", "ask"}
	checks.people(settings.people)
	checks.patterns(settings.agents)
	is_array(settings.checks)
	checks.patterns(array.concat(settings.checks, ["x"]))
}
