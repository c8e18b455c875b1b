# METADATA
# title: Phases
# description: >-
#   Letting agents use new tools step by step, from data.house.phases: in phase observe they only read, in phase
#   small_group only listed groups may change something, so many times a run and after people have agreed where that is
#   asked for, in phase widen everybody may whom the allow lists cover. Nothing is allowed here.
# custom:
#   data: data.house.phases
#   exports: [deny, require]
#   ids:
#     - phases.settings
#     - phases.observe
#     - phases.group
#     - phases.calls_per_run
#     - phases.approval
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.phases

import data.gateway.lib.settings as checks

deny contains {
	"id": "phases.settings",
	"msg": "data.house.phases is missing or cannot be read, so no call is allowed until it can",
	"fact": "data.house.phases",
} if {
	concerned
	not sound
}

deny contains {
	"id": "phases.observe",
	"msg": sprintf("%s is in phase observe: agents read, and change nothing yet", [name]),
	"fact": sprintf("data.house.phases.rollouts.%s.phase", [name]),
} if {
	concerned
	some name, rollout in rollouts
	rollout.phase == "observe"
}

deny contains {
	"id": "phases.group",
	"msg": sprintf("%s is tried out by a small group, which does not include this person", [name]),
	"fact": sprintf("data.house.phases.rollouts.%s.groups", [name]),
} if {
	concerned
	some name, rollout in rollouts
	rollout.phase == "small_group"
	not name in tried_by_person
}

deny contains {
	"id": "phases.calls_per_run",
	"msg": sprintf("%v calls a run are allowed while %s is tried out", [most, name]),
	"fact": sprintf("data.house.phases.rollouts.%s.calls_per_run", [name]),
} if {
	concerned
	some name, rollout in rollouts
	rollout.phase == "small_group"
	most := rollout.calls_per_run
	not name in data.gateway.lib.phases.with_room
}

require contains {
	"id": "phases.approval",
	"msg": sprintf("while %s is tried out, its calls need the approval of people", [name]),
	"quorum": object.get(people, "quorum", 1),
	"roles": object.get(people, "roles", []),
	"ttl_s": object.get(people, "ttl_s", 86400),
	"exclude": ["requester"],
} if {
	concerned
	some name, rollout in rollouts
	rollout.phase == "small_group"
	people := rollout.people
}

# The first condition of every rule above: of calls that it does not concern, this package has no say.
concerned if {
	input.phase == "call"
	not sound
}

concerned if {
	input.phase == "call"
	input.tool.effect != "read"
	count(rollouts) > 0
}

rollouts[name] := rollout if {
	sound
	some name, rollout in data.house.phases.rollouts
	data.gateway.lib.scope.matched(rollout.tools)
}

tried_by_person contains name if {
	some name, rollout in rollouts
	some group in data.gateway.lib.scope.person.groups
	group in rollout.groups
}

sound if {
	settings := data.house.phases
	checks.known(settings, {"rollouts"})
	is_object(settings.rollouts)
	every _, rollout in settings.rollouts {
		checks.known(rollout, {"tools", "phase", "groups", "calls_per_run", "people"})
		checks.patterns(rollout.tools)
		rollout.phase in {"observe", "small_group", "widen"}
		checks.names(rollout.groups)
		checks.whole(object.get(rollout, "calls_per_run", 0))
		checks.people(object.get(rollout, "people", {}))
	}
}
