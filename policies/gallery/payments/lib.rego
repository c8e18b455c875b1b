# METADATA
# title: Payments, counted
# description: What the settings must look like, and what this call and its run amount to.
package gateway.lib.payments

sound if {
	settings := data.house.payments
	data.gateway.lib.settings.known(settings, {"tools", "measure", "currencies", "hours", "roles"})
	data.gateway.lib.settings.patterns(settings.tools)
	data.gateway.lib.settings.names([settings.measure])
	data.gateway.lib.settings.names(object.get(settings, "roles", []))
	is_object(settings.currencies)
	every currency, bounds in settings.currencies {
		regex.match(`^[A-Z]{3}$`, currency)
		bounded(bounds)
	}
	timed
}

bounded(bounds) if {
	data.gateway.lib.settings.known(bounds, {"per_call", "per_run", "autopilot", "second"})
	every key in ["per_call", "per_run", "autopilot", "second"] {
		data.gateway.lib.settings.whole(bounds[key])
	}
	bounds.autopilot <= bounds.second
}

timed if not has_hours

has_hours if "hours" in object.keys(data.house.payments)

timed if {
	hours := data.house.payments.hours
	data.gateway.lib.settings.known(hours, {"zone", "days", "from", "to"})
	is_string(hours.zone)
	data.gateway.lib.settings.names(hours.days)
	data.gateway.lib.settings.whole(hours.from)
	data.gateway.lib.settings.whole(hours.to)
	hours.from < hours.to
	hours.to <= 24

	# A zone that does not exist is an error here, so that the bundle is refused when it is loaded.
	time.weekday([0, hours.zone])
}

# What this call pays, by currency; empty where that cannot be counted.
amounts[currency] := amount if {
	sound
	some currency, _ in data.house.payments.currencies
	amount := input.run.amounts[concat(".", [data.house.payments.measure, currency])]
	data.gateway.lib.settings.whole(amount)
}

# What the run has paid by all these tools together, payments under way included.
spent[currency] := sum(paid) if {
	sound
	is_object(input.run.sums)
	some currency, _ in data.house.payments.currencies
	measure := concat(".", [data.house.payments.measure, currency])
	paid := [one |
		some tool, sums in input.run.sums
		data.gateway.lib.settings.covers(data.house.payments.tools, tool)
		one := sums[measure]
		is_number(one)
	]
}

counted if {
	count(amounts) > 0
	is_object(input.run.sums)
	every _, sums in input.run.sums {
		every _, one in sums {
			is_number(one)
		}
	}
}

within_hours if {
	hours := data.house.payments.hours
	now := [input.time.us * 1000, hours.zone]
	time.weekday(now) in hours.days
	[hour, _, _] := time.clock(now)
	hour >= hours.from
	hour < hours.to
}
