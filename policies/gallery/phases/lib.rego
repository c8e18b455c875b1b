# METADATA
# title: Phases, counted
# description: Which rollouts this run has room in, all their tools together; calls under way are counted.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.phases

import data.gateway.lib.settings as checks

with_room contains name if {
	some name, rollout in data.house.phases.rollouts
	is_object(input.run.calls)
	made := [calls |
		some tool, calls in input.run.calls
		checks.covers(rollout.tools, tool)
	]
	sum(made) < rollout.calls_per_run
}
