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

deny contains {
	"id": "verify_only.settings",
	"msg": "data.house.verify_only is missing or cannot be read, so this call is not allowed until it can",
	"fact": "data.house.verify_only",
} if {
	concerned
	input.phase == "call"
	not data.gateway.lib.verify_only.sound
}

deny contains {
	"id": "verify_only.change",
	"msg": sprintf("this agent looks and checks, and %s changes something", [input.tool.fqn]),
	"fact": "data.house.verify_only.checks",
} if {
	concerned
	data.gateway.lib.verify_only.sound
	data.house.verify_only.changes == "hide"
	not data.gateway.lib.verify_only.harmless
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
	data.gateway.lib.verify_only.to_be_seen
	people := data.house.verify_only.people
}

# The first condition of every rule above: of calls that it does not concern, this package has no say. Whether it is one is
# asked before anything else, settings included, so that other calls cost next to nothing.
concerned if {
	input.phase == "call"
	not data.gateway.lib.verify_only.listed
}

concerned if data.gateway.lib.verify_only.of_agent
