# METADATA
# title: Infrastructure change, read from the arguments
# description: What the settings must look like, and what the arguments say of environment, number and ticket.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.infrastructure

import data.gateway.lib.settings as checks

# A call of one of the tools; any call at all where the list of them cannot be read.
concerned if not listed

concerned if {
	listed
	input.tool.effect != "read"
	checks.covers(data.house.infrastructure.tools, input.tool.fqn)
}

listed if checks.patterns(data.house.infrastructure.tools)

sound if {
	settings := data.house.infrastructure
	checks.known(settings, {"tools", "arguments", "environments"})
	checks.patterns(settings.tools)
	checks.known(settings.arguments, {"environment", "count", "ticket"})
	checks.names([name | some name in settings.arguments])
	settings.arguments.environment
	is_object(settings.environments)
	every _, entry in settings.environments {
		bounded(entry)
	}
}

bounded(entry) if {
	checks.known(entry, {"most", "ticket", "freezes", "destructive", "people"})
	checks.whole(object.get(entry, "most", 0))
	checks.people(object.get(entry, "people", {}))
	checks.names([object.get(entry, "ticket", "none")])
	is_boolean(object.get(entry, "destructive", false))
	is_array(object.get(entry, "freezes", []))
	every freeze in object.get(entry, "freezes", []) {
		checks.known(freeze, {"from", "until"})
		day(freeze.from)
		day(freeze.until)
		freeze.from < freeze.until
	}
}

day(text) if {
	is_string(text)
	regex.match(`^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$`, text)
}

environment := input.args[data.house.infrastructure.arguments.environment]

# What is set about the environment that the arguments name; undefined where it is not listed.
bounds := data.house.infrastructure.environments[environment] if sound

few_enough if {
	number := input.args[data.house.infrastructure.arguments.count]
	checks.whole(number)
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
