# METADATA
# title: Infrastructure change
# description: >-
#   What an agent may change in which environment, from data.house.infrastructure: only environments that are listed, at
#   most so many things in one change, with a change ticket, not while changes are frozen, never by a tool that destroys
#   unless the environment says so, and after people have agreed where it asks for them. Reads are free.
# custom:
#   data: data.house.infrastructure
#   exports: [deny, require]
#   ids:
#     - infrastructure.settings
#     - infrastructure.environment
#     - infrastructure.most
#     - infrastructure.ticket
#     - infrastructure.frozen
#     - infrastructure.destructive
#     - infrastructure.approval
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.infrastructure

deny contains {
	"id": "infrastructure.settings",
	"msg": "data.house.infrastructure is missing or cannot be read, so this call is not allowed until it can",
	"fact": "data.house.infrastructure",
} if {
	concerned
	not data.gateway.lib.infrastructure.sound
}

deny contains {
	"id": "infrastructure.environment",
	"msg": "the change names no environment, or one that is not listed",
	"fact": "data.house.infrastructure.environments",
} if {
	concerned
	data.gateway.lib.infrastructure.sound
	not data.gateway.lib.infrastructure.bounds
}

deny contains {
	"id": "infrastructure.most",
	"msg": sprintf("one change in %s may touch %v things at most, and must say how many", [environment, bounds.most]),
	"fact": sprintf("data.house.infrastructure.environments.%s.most", [environment]),
} if {
	concerned
	bounds := data.gateway.lib.infrastructure.bounds
	environment := data.gateway.lib.infrastructure.environment
	bounds.most >= 0
	not data.gateway.lib.infrastructure.few_enough
}

deny contains {
	"id": "infrastructure.ticket",
	"msg": sprintf("a change in %s needs a change ticket: %s and a number", [environment, bounds.ticket]),
	"fact": sprintf("data.house.infrastructure.environments.%s.ticket", [environment]),
} if {
	concerned
	bounds := data.gateway.lib.infrastructure.bounds
	environment := data.gateway.lib.infrastructure.environment
	bounds.ticket != ""
	not data.gateway.lib.infrastructure.ticketed
}

deny contains {
	"id": "infrastructure.frozen",
	"msg": sprintf("changes in %s are frozen from %s until %s", [environment, freeze.from, freeze.until]),
	"fact": sprintf("data.house.infrastructure.environments.%s.freezes", [environment]),
} if {
	concerned
	environment := data.gateway.lib.infrastructure.environment
	some freeze in data.gateway.lib.infrastructure.freezes
}

deny contains {
	"id": "infrastructure.destructive",
	"msg": sprintf("%s destroys, and nothing may be destroyed in %s", [input.tool.fqn, environment]),
	"fact": sprintf("data.house.infrastructure.environments.%s.destructive", [environment]),
} if {
	concerned
	input.tool.effect == "destructive"
	bounds := data.gateway.lib.infrastructure.bounds
	environment := data.gateway.lib.infrastructure.environment
	object.get(bounds, "destructive", false) == false
}

require contains {
	"id": "infrastructure.approval",
	"msg": sprintf("a change in %s needs the approval of people", [environment]),
	"quorum": object.get(people, "quorum", 1),
	"roles": object.get(people, "roles", []),
	"ttl_s": object.get(people, "ttl_s", 86400),
	"exclude": ["requester"],
} if {
	concerned
	environment := data.gateway.lib.infrastructure.environment
	people := data.gateway.lib.infrastructure.bounds.people
}

# The first condition of every rule above: of calls that it does not concern, this package has no say. Whether it is one is
# asked before anything else, settings included, so that other calls cost next to nothing.
concerned if {
	input.phase == "call"
	data.gateway.lib.infrastructure.concerned
}
