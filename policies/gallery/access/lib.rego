# METADATA
# title: Access change, read from the arguments
# description: What the settings must look like, and what the arguments say of person, role and days.
package gateway.lib.access

sound if {
	settings := data.house.access
	data.gateway.lib.settings.known(settings, {"tools", "arguments", "roles"})
	data.gateway.lib.settings.patterns(settings.tools)
	data.gateway.lib.settings.known(settings.arguments, {"user", "role", "days"})
	data.gateway.lib.settings.names([settings.arguments[key] | some key in ["user", "role", "days"]])
	count(settings.arguments) == 3
	is_object(settings.roles)
	every _, entry in settings.roles {
		data.gateway.lib.settings.known(entry, {"most_days", "people"})
		data.gateway.lib.settings.positive(entry.most_days)
		data.gateway.lib.settings.people(object.get(entry, "people", {}))
	}
}

# In small letters; a name in other letters than these could look like another one, and would not be compared well.
user := lower(name) if {
	name := input.args[data.house.access.arguments.user]
	is_string(name)
	regex.match(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$`, name)
}

role := input.args[data.house.access.arguments.role]

# What is set about the role that the arguments name; undefined where it is not listed.
bounds := data.house.access.roles[role] if sound

short_enough if {
	days := input.args[data.house.access.arguments.days]
	data.gateway.lib.settings.positive(days)
	days <= bounds.most_days
}
