# METADATA
# title: Escalation
# description: >-
#   Which calls go to which people, from data.house.escalation: those that cost more than so much, those that touch
#   personal data, and those that a regulation covers. A call that is several of these needs all of these people. Nothing
#   is allowed here.
# custom:
#   data: data.house.escalation
#   exports: [deny, require]
#   ids:
#     - escalation.settings
#     - escalation.cost
#     - escalation.personal
#     - escalation.regulatory
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.escalation

deny contains {
	"id": "escalation.settings",
	"msg": "data.house.escalation is missing or cannot be read, so this call is not allowed until it can",
	"fact": "data.house.escalation",
} if {
	concerned
	not data.gateway.lib.escalation.sound
}

require contains {
	"id": "escalation.cost",
	"msg": sprintf("a call of %s costs more than may be spent without asking", [input.tool.fqn]),
	"quorum": object.get(people, "quorum", 1),
	"roles": object.get(people, "roles", []),
	"ttl_s": object.get(people, "ttl_s", 86400),
	"exclude": ["requester"],
} if {
	concerned
	data.gateway.lib.escalation.sound
	people := data.house.escalation.cost.people
	not data.gateway.lib.escalation.cheap
}

require contains {
	"id": "escalation.personal",
	"msg": sprintf("%s touches personal data", [input.tool.fqn]),
	"quorum": object.get(people, "quorum", 1),
	"roles": object.get(people, "roles", []),
	"ttl_s": object.get(people, "ttl_s", 86400),
	"exclude": ["requester"],
} if {
	concerned
	data.gateway.lib.escalation.sound
	people := data.house.escalation.personal.people
	data.gateway.lib.escalation.touches("personal")
}

require contains {
	"id": "escalation.regulatory",
	"msg": sprintf("%s is covered by a regulation", [input.tool.fqn]),
	"quorum": object.get(people, "quorum", 1),
	"roles": object.get(people, "roles", []),
	"ttl_s": object.get(people, "ttl_s", 86400),
	"exclude": ["requester"],
} if {
	concerned
	data.gateway.lib.escalation.sound
	people := data.house.escalation.regulatory.people
	data.gateway.lib.escalation.touches("regulatory")
}

# The first condition of every rule above: of calls that it does not concern, this package has no say. Whether it is one is
# asked before anything else, settings included, so that other calls cost next to nothing.
concerned if {
	input.phase == "call"
	data.gateway.lib.escalation.concerned
}
