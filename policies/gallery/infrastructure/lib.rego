# METADATA
# title: Infrastructure change, read from the arguments
# description: What the settings must look like, and what the arguments say of environment, number and ticket.
package gateway.lib.infrastructure

sound if {
	settings := data.house.infrastructure
	data.gateway.lib.settings.known(settings, {"tools", "arguments", "environments"})
	data.gateway.lib.settings.patterns(settings.tools)
	data.gateway.lib.settings.known(settings.arguments, {"environment", "count", "ticket"})
	data.gateway.lib.settings.names([name | some name in settings.arguments])
	settings.arguments.environment
	is_object(settings.environments)
	every _, entry in settings.environments {
		bounded(entry)
	}
}

bounded(entry) if {
	data.gateway.lib.settings.known(entry, {"most", "ticket", "freezes", "destructive", "people"})
	data.gateway.lib.settings.whole(object.get(entry, "most", 0))
	data.gateway.lib.settings.people(object.get(entry, "people", {}))
	data.gateway.lib.settings.names([object.get(entry, "ticket", "none")])
	is_boolean(object.get(entry, "destructive", false))
	is_array(object.get(entry, "freezes", []))
	every freeze in object.get(entry, "freezes", []) {
		data.gateway.lib.settings.known(freeze, {"from", "until"})
		day(freeze.from)
		day(freeze.until)
	}
}

day(text) if {
	is_string(text)
	regex.match(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`, text)
}

environment := input.args[data.house.infrastructure.arguments.environment]

# What is set about the environment that the arguments name; undefined where it is not listed.
bounds := data.house.infrastructure.environments[environment] if sound

few_enough if {
	number := input.args[data.house.infrastructure.arguments.count]
	data.gateway.lib.settings.whole(number)
	number <= bounds.most
}

ticketed if {
	ticket := input.args[data.house.infrastructure.arguments.ticket]
	is_string(ticket)
	startswith(ticket, bounds.ticket)
	regex.match(`^[0-9]{1,12}$`, substring(ticket, count(bounds.ticket), -1))
}

# Days are those of UTC; the last one is not frozen any more.
freezes contains freeze if {
	some freeze in bounds.freezes
	input.time.rfc3339 >= freeze.from
	input.time.rfc3339 < freeze.until
}
