# METADATA
# title: Access change
# description: >-
#   Which access an agent may give to whom, from data.house.access: only roles that are listed, for so many days at most,
#   never to the person it works for nor to itself, and after people have agreed where the role asks for them. Nothing is allowed here.
# custom:
#   data: data.house.access
#   exports: [deny, require]
#   ids:
#     - access.settings
#     - access.user
#     - access.own
#     - access.role
#     - access.days
#     - access.approval
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.access

deny contains {
	"id": "access.settings",
	"msg": "data.house.access is missing or cannot be read, so this call is not allowed until it can",
	"fact": "data.house.access",
} if {
	concerned
	not data.gateway.lib.access.sound
}

deny contains {
	"id": "access.user",
	"msg": "the change does not say in plain letters whom it is for",
	"fact": "data.house.access.arguments.user",
} if {
	concerned
	data.gateway.lib.access.sound
	not data.gateway.lib.access.user
}

deny contains {
	"id": "access.own",
	"msg": "nobody changes their own access, by an agent or otherwise",
	"fact": "data.house.access.arguments.user",
} if {
	concerned
	data.gateway.lib.access.sound
	data.gateway.lib.access.user in data.gateway.lib.access.callers
}

deny contains {
	"id": "access.role",
	"msg": "the change names no role, or one that is not listed",
	"fact": "data.house.access.roles",
} if {
	concerned
	data.gateway.lib.access.sound
	not data.gateway.lib.access.bounds
}

deny contains {
	"id": "access.days",
	"msg": sprintf("%s is given for %v days at most, and the change must say for how many", [role, bounds.most_days]),
	"fact": sprintf("data.house.access.roles.%s.most_days", [role]),
} if {
	concerned
	role := data.gateway.lib.access.role
	bounds := data.gateway.lib.access.bounds
	not data.gateway.lib.access.short_enough
}

require contains {
	"id": "access.approval",
	"msg": sprintf("giving %s needs the approval of people", [role]),
	"quorum": object.get(people, "quorum", 1),
	"roles": object.get(people, "roles", []),
	"ttl_s": object.get(people, "ttl_s", 86400),
	"exclude": ["requester"],
} if {
	concerned
	role := data.gateway.lib.access.role
	people := data.gateway.lib.access.bounds.people
}

# The first condition of every rule above: of calls that it does not concern, this package has no say. Whether it is one is
# asked before anything else, settings included, so that other calls cost next to nothing.
concerned if {
	input.phase == "call"
	data.gateway.lib.access.concerned
}
