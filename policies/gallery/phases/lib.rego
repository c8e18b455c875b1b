# METADATA
# title: Phases, counted
# description: What the settings must look like, which rollouts a call is of, and whether the run has room in them.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.phases

import data.gateway.lib.settings as checks

# A call that may change something, of a tool of a rollout; any call where the rollouts' tools cannot be read.
concerned if not listed

concerned if {
	input.tool.effect != "read"
	count(rollouts) > 0
}

listed if {
	is_object(data.house.phases.rollouts)
	every _, rollout in data.house.phases.rollouts {
		checks.patterns(rollout.tools)
	}
}

rollouts[name] := rollout if {
	listed
	some name, rollout in data.house.phases.rollouts
	checks.covers(rollout.tools, input.tool.fqn)
}

sound if {
	settings := data.house.phases
	checks.known(settings, {"rollouts"})
	listed
	every _, rollout in settings.rollouts {
		checks.known(rollout, {"tools", "phase", "groups", "calls_per_run", "people"})
		rollout.phase in {"observe", "small_group", "widen"}
		checks.names(rollout.groups)
		checks.whole(object.get(rollout, "calls_per_run", 0))
		checks.people(object.get(rollout, "people", {}))
	}
}

tried_by_person contains name if {
	some name, rollout in rollouts
	some group in data.gateway.lib.scope.person.groups
	group in rollout.groups
}

# All tools of a rollout together; calls under way are counted.
with_room contains name if {
	some name, rollout in rollouts
	is_object(input.run.calls)
	made := [calls |
		some tool, calls in input.run.calls
		checks.covers(rollout.tools, tool)
	]
	sum(made) < rollout.calls_per_run
}
