# METADATA
# title: The run's ledger
# description: >-
#   What the run has done with the tool of the input, and what this call adds. run.calls and run.sums count the calls that
#   were made or are under way, not this one; run.amounts is this call's. Measures are NAME or NAME.CURRENCY.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.ledger

# What counts together: all that is read of a template counts for the template.
counted := concat("", [input.tool.server, ".", input.tool.template])

counted := input.tool.fqn if not input.tool.template

limits := data.gateway.limits[counted]

sums := asked if {
	asked := object.get(limits, "sums_per_run", {})
	is_object(asked)
}

calls_so_far := object.get(input.run.calls, [counted], 0)

sum_so_far(measure) := object.get(input.run.sums, [counted, measure], 0)

countable[measure] := amount if {
	some measure, amount in input.run.amounts
	is_number(amount)
	amount >= 0
}

counted_names contains split(measure, ".")[0] if some measure, _ in countable

limited_names contains split(measure, ".")[0] if some measure, _ in sums

listed(measure) if sums[measure]

well_formed if {
	is_object(limits)
	is_object(input.run.calls)
	is_object(input.run.sums)
	is_number(calls_so_far)
	is_number(object.get(limits, "calls_per_run", 0))
	every measure, limit in sums {
		is_number(limit)
		is_number(sum_so_far(measure))
	}
	object.keys(limits) - {"calls_per_run", "sums_per_run"} == set()
}
