# METADATA
# title: Data guard, read from the tool and the run
# description: What the settings must look like, which guarded labels the tool has, and what the run has used before.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.data_guard

import data.gateway.lib.settings as checks

# A call of a tool with a guarded label, or one that reaches the outside; any call where the labels cannot be read.
concerned if input.tool.open_world

concerned if not listed

concerned if {
	listed
	some label in input.tool.labels
	label in object.keys(data.house.data_guard.labels)
}

listed if is_object(data.house.data_guard.labels)

sound if {
	settings := data.house.data_guard
	checks.known(settings, {"labels", "residency", "egress"})
	is_object(settings.labels)
	every _, label in settings.labels {
		checks.known(label, {"groups", "most_retention_days"})
		checks.names(label.groups)
		checks.whole(object.get(label, "most_retention_days", 0))
	}
	is_object(settings.residency)
	every _, regions in settings.residency {
		checks.names(regions)
	}
	checks.known(settings.egress, {"after", "allow"})
	checks.patterns(settings.egress.after)
	is_array(settings.egress.allow)
	checks.patterns(array.concat(settings.egress.allow, ["x"]))
}

guarded contains label if {
	sound
	some label in input.tool.labels
	data.house.data_guard.labels[label]
}

# Guarded labels that are for a group of the person who calls, or for whom the agent does.
own contains label if {
	some label in guarded
	some group in data.gateway.lib.scope.person.groups
	group in data.house.data_guard.labels[label].groups
}

forgotten_in_time contains label if {
	some label in guarded
	input.tool.vendor.retention_days <= data.house.data_guard.labels[label].most_retention_days
}

at_home if input.tool.vendor.region in data.house.data_guard.residency[input.context.region]

sensitive contains tool if {
	some tool, _ in input.run.calls
	checks.covers(data.house.data_guard.egress.after, tool)
}

clean if {
	is_object(input.run.calls)
	count(sensitive) == 0
}

excepted if checks.covers(data.house.data_guard.egress.allow, input.tool.fqn)
