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

import data.gateway.lib.settings as checks

deny contains {
	"id": "escalation.settings",
	"msg": "data.house.escalation is missing or cannot be read, so no call is allowed until it can",
	"fact": "data.house.escalation",
} if {
	concerned
	not sound
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
	sound
	people := data.house.escalation.cost.people
	not cheap
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
	sound
	people := data.house.escalation.personal.people
	touches("personal")
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
	sound
	people := data.house.escalation.regulatory.people
	touches("regulatory")
}

# The first condition of every rule above.
concerned if input.phase == "call"

# A price in a currency that is not listed is more than anybody has agreed to.
cheap if input.tool.price.micros <= data.house.escalation.cost.most_micros[input.tool.price.currency]

cheap if input.tool.price.micros == 0

touches(area) if {
	some label in input.tool.labels
	label in data.house.escalation[area].labels
	input.tool.effect in data.house.escalation[area].effects
}

sound if {
	settings := data.house.escalation
	checks.known(settings, {"cost", "personal", "regulatory"})
	checks.known(settings.cost, {"most_micros", "people"})
	checks.people(settings.cost.people)
	is_object(settings.cost.most_micros)
	every _, most in settings.cost.most_micros {
		checks.whole(most)
	}
	area_sound(settings.personal)
	area_sound(settings.regulatory)
}

area_sound(area) if {
	checks.known(area, {"labels", "effects", "people"})
	checks.names(area.labels)
	checks.people(area.people)
	is_array(area.effects)
	every effect in area.effects {
		effect in {"read", "write", "destructive", "money"}
	}
}
