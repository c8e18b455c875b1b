# METADATA
# title: Limits over a run
# description: >-
#   data.gateway.limits[TOOL] = {"calls_per_run": 3, "sums_per_run": {"amount.EUR": 500000}} bounds what one run may do
#   with one tool. Whatever cannot be counted is denied: a limit that is no number, an amount that is missing, a currency
#   that is not listed. Limits bind calls; whether a tool may be listed does not depend on what the run has done.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.limits

deny contains {
	"id": "limits.calls_per_run",
	"msg": sprintf("%v calls of %s a run are allowed; %v were made or are under way", [limit, input.tool.fqn, calls]),
	"fact": sprintf("data.gateway.limits.%s.calls_per_run", [data.gateway.lib.ledger.counted]),
} if {
	limited
	limit := data.gateway.limits[data.gateway.lib.ledger.counted].calls_per_run
	calls := data.gateway.lib.ledger.calls_so_far
	calls + 1 > limit
}

deny contains {
	"id": "limits.sum_per_run",
	"msg": sprintf("%v of %s a run is allowed; %v is used and this call adds %v", [limit, measure, so_far, amount]),
	"fact": sprintf("data.gateway.limits.%s.sums_per_run.%s", [data.gateway.lib.ledger.counted, measure]),
} if {
	limited
	some measure, limit in data.gateway.lib.ledger.sums
	amount := data.gateway.lib.ledger.countable[measure]
	so_far := data.gateway.lib.ledger.sum_so_far(measure)
	so_far + amount > limit
}

deny contains {
	"id": "limits.amount_missing",
	"msg": sprintf("the run's limit on %s needs an amount, and this call has none that can be counted", [name]),
	"fact": sprintf("input.run.amounts.%s", [name]),
} if {
	limited
	some measure, _ in data.gateway.lib.ledger.sums
	not data.gateway.lib.ledger.countable[measure]
	name := split(measure, ".")[0]
	not name in data.gateway.lib.ledger.counted_names
}

deny contains {
	"id": "limits.measure_not_listed",
	"msg": sprintf("%s is limited in other units only, so an amount in %s cannot be allowed", [name, measure]),
	"fact": sprintf("data.gateway.limits.%s.sums_per_run.%s", [data.gateway.lib.ledger.counted, measure]),
} if {
	limited
	some measure, _ in data.gateway.lib.ledger.countable
	not data.gateway.lib.ledger.listed(measure)
	name := split(measure, ".")[0]
	name in data.gateway.lib.ledger.limited_names
}

deny contains {
	"id": "limits.malformed",
	"msg": sprintf("the limits of %s are not numbers, or the run's ledger is missing", [input.tool.fqn]),
	"fact": sprintf("data.gateway.limits.%s", [data.gateway.lib.ledger.counted]),
} if {
	limited
	not data.gateway.lib.ledger.well_formed
}

# What an agent does itself is asked about and not counted: it might ask and not act, or act and not ask.
deny contains {
	"id": "limits.uncounted",
	"msg": sprintf("%s is limited, and what an agent does itself cannot be counted", [input.tool.fqn]),
	"fact": sprintf("data.gateway.limits.%s", [input.tool.fqn]),
} if {
	limited
	input.tool.connector == "hook"
}

limited if {
	input.phase == "call"
	data.gateway.limits[data.gateway.lib.ledger.counted]
}
