# METADATA
# title: Payments, counted
# description: What the settings must look like, and what this call and its run amount to.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.payments

import data.gateway.lib.settings as checks

# A call of one of the tools; any call at all where the list of them cannot be read.
concerned if not listed

concerned if {
	listed
	checks.covers(data.house.payments.tools, input.tool.fqn)
}

# Never. But a zone that does not exist is an error here, so that the bundle is refused when it is loaded and not at the
# first payment.
concerned if {
	is_string(data.house.payments.hours.zone)
	time.weekday([0, data.house.payments.hours.zone]) == "never"
}

listed if checks.patterns(data.house.payments.tools)

sound if {
	settings := data.house.payments
	checks.known(settings, {"tools", "measure", "currencies", "hours", "roles"})
	checks.patterns(settings.tools)
	checks.names([settings.measure])
	checks.names(object.get(settings, "roles", []))
	is_object(settings.currencies)
	every currency, bounds in settings.currencies {
		regex.match(`^[A-Z]{3}$`, currency)
		bounded(bounds)
	}
	timed
}

bounded(bounds) if {
	checks.known(bounds, {"per_call", "per_run", "autopilot", "second", "alone_per_run"})
	checks.whole(object.get(bounds, "alone_per_run", 0))
	every key in ["per_call", "per_run", "autopilot", "second"] {
		checks.whole(bounds[key])
	}
	bounds.autopilot <= bounds.second
}

timed if not has_hours

has_hours if "hours" in object.keys(data.house.payments)

timed if {
	hours := data.house.payments.hours
	checks.known(hours, {"zone", "days", "from", "to"})
	is_string(hours.zone)
	is_array(hours.days)
	count({day | some day in hours.days} - week) == 0
	checks.whole(hours.from)
	checks.whole(hours.to)
	hours.from < hours.to
	hours.to <= 24
}

week := {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}

# What this call pays, by currency; empty where that cannot be counted.
amounts[currency] := amount if {
	sound
	some currency, _ in data.house.payments.currencies
	amount := input.run.amounts[concat(".", [data.house.payments.measure, currency])]
	checks.whole(amount)
}

# What the run has paid by all these tools together, payments under way included.
spent[currency] := sum(paid) if {
	sound
	is_object(input.run.sums)
	some currency, _ in data.house.payments.currencies
	measure := concat(".", [data.house.payments.measure, currency])
	paid := [one |
		some tool, sums in input.run.sums
		checks.covers(data.house.payments.tools, tool)
		one := sums[measure]
		is_number(one)
	]
}

# What the call says of the measure in any currency, or in none: each of them must be bounded.
measured contains name if {
	some name, _ in input.run.amounts
	split(name, ".")[0] == split(data.house.payments.measure, ".")[0]
}

counted if {
	count(amounts) > 0
	count(amounts) == count(measured)
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
