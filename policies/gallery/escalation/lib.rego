# METADATA
# title: Escalation, read from the tool
# description: What the settings must look like, whether a call costs little, and what it touches.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.escalation

import data.gateway.lib.settings as checks

# A call that costs something or whose tool has one of the labels; any call where the labels cannot be read.
concerned if not free

concerned if not listed

concerned if {
	listed
	some label in input.tool.labels
	label in array.concat(data.house.escalation.personal.labels, data.house.escalation.regulatory.labels)
}

free if input.tool.price.micros == 0

listed if {
	is_array(data.house.escalation.personal.labels)
	is_array(data.house.escalation.regulatory.labels)
}

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
	count({effect | some effect in area.effects} - {"read", "write", "destructive", "money"}) == 0
}
