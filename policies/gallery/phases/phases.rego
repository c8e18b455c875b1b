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

deny contains {
	"id": "phases.settings",
	"msg": "data.house.phases is missing or cannot be read, so this call is not allowed until it can",
	"fact": "data.house.phases",
} if {
	concerned
	not data.gateway.lib.phases.sound
}

deny contains {
	"id": "phases.observe",
	"msg": sprintf("%s is in phase observe: agents read, and change nothing yet", [name]),
	"fact": sprintf("data.house.phases.rollouts.%s.phase", [name]),
} if {
	concerned
	data.gateway.lib.phases.sound
	some name, rollout in data.gateway.lib.phases.rollouts
	rollout.phase == "observe"
}

deny contains {
	"id": "phases.group",
	"msg": sprintf("%s is tried out by a small group, which does not include this person", [name]),
	"fact": sprintf("data.house.phases.rollouts.%s.groups", [name]),
} if {
	concerned
	data.gateway.lib.phases.sound
	some name, rollout in data.gateway.lib.phases.rollouts
	rollout.phase == "small_group"
	not name in data.gateway.lib.phases.tried_by_person
}

deny contains {
	"id": "phases.calls_per_run",
	"msg": sprintf("%v calls a run are allowed while %s is tried out", [most, name]),
	"fact": sprintf("data.house.phases.rollouts.%s.calls_per_run", [name]),
} if {
	concerned
	data.gateway.lib.phases.sound
	some name, rollout in data.gateway.lib.phases.rollouts
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
	data.gateway.lib.phases.sound
	some name, rollout in data.gateway.lib.phases.rollouts
	rollout.phase == "small_group"
	people := rollout.people
}

# The first condition of every rule above: of calls that it does not concern, this package has no say. Whether it is one is
# asked before anything else, settings included, so that other calls cost next to nothing.
concerned if {
	input.phase == "call"
	data.gateway.lib.phases.concerned
}
