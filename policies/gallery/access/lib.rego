# METADATA
# title: Access change, read from the arguments
# description: What the settings must look like, and what the arguments say of person, role and days.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.access

import data.gateway.lib.settings as checks

# A call of one of the tools; any call at all where the list of them cannot be read.
concerned if not listed

concerned if {
	listed
	checks.covers(data.house.access.tools, input.tool.fqn)
}

listed if checks.patterns(data.house.access.tools)

sound if {
	settings := data.house.access
	checks.known(settings, {"tools", "arguments", "roles"})
	checks.patterns(settings.tools)
	checks.known(settings.arguments, {"user", "role", "days"})
	checks.names([settings.arguments[key] | some key in ["user", "role", "days"]])
	count(settings.arguments) == 3
	is_object(settings.roles)
	every _, entry in settings.roles {
		checks.known(entry, {"most_days", "people"})
		checks.positive(entry.most_days)
		checks.people(object.get(entry, "people", {}))
	}
}

# In small letters; a name in other letters than these could look like another one, and would not be compared well.
user := lower(name) if {
	name := input.args[data.house.access.arguments.user]
	is_string(name)
	regex.match(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$`, name)
}

# The person who calls or for whom an agent does, and the agent.
callers contains lower(id) if {
	some id in [data.gateway.lib.scope.person.id, input.principal.id]
	regex.match(`^[ -~]*$`, id)
}

role := input.args[data.house.access.arguments.role]

# What is set about the role that the arguments name; undefined where it is not listed.
bounds := data.house.access.roles[role] if sound

short_enough if {
	days := input.args[data.house.access.arguments.days]
	checks.positive(days)
	days <= bounds.most_days
}
