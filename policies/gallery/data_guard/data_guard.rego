# METADATA
# title: Data guard
# description: >-
#   Where data may go, from data.house.data_guard: tools with a guarded label are for listed groups, their vendors keep
#   nothing for longer than allowed and stand in regions that are allowed where this gateway runs; and once a run has
#   used a sensitive tool, it reaches the outside by listed tools only. Nothing is allowed here.
# custom:
#   data: data.house.data_guard
#   exports: [deny]
#   ids:
#     - data_guard.settings
#     - data_guard.group
#     - data_guard.retention
#     - data_guard.residency
#     - data_guard.egress
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.data_guard

deny contains {
	"id": "data_guard.settings",
	"msg": "data.house.data_guard is missing or cannot be read, so this call is not allowed until it can",
	"fact": "data.house.data_guard",
} if {
	concerned
	not data.gateway.lib.data_guard.sound
}

deny contains {
	"id": "data_guard.group",
	"msg": sprintf("%s holds %s data, which is for other groups", [input.tool.fqn, label]),
	"fact": sprintf("data.house.data_guard.labels.%s.groups", [label]),
} if {
	concerned
	some label in data.gateway.lib.data_guard.guarded
	not label in data.gateway.lib.data_guard.own
}

deny contains {
	"id": "data_guard.retention",
	"msg": sprintf("%s data may be kept for %v days, and %s keeps it longer or does not say", [label, most, input.tool.fqn]),
	"fact": sprintf("data.house.data_guard.labels.%s.most_retention_days", [label]),
} if {
	concerned
	some label in data.gateway.lib.data_guard.guarded
	most := data.house.data_guard.labels[label].most_retention_days
	not label in data.gateway.lib.data_guard.forgotten_in_time
}

deny contains {
	"id": "data_guard.residency",
	"msg": sprintf("%s data does not leave its regions, and the vendor of %s is in none of them", [label, input.tool.fqn]),
	"fact": "data.house.data_guard.residency",
} if {
	concerned
	some label in data.gateway.lib.data_guard.guarded
	not data.gateway.lib.data_guard.at_home
}

deny contains {
	"id": "data_guard.egress",
	"msg": "this run has used sensitive tools, so it reaches the outside by listed tools only",
	"fact": "data.house.data_guard.egress.allow",
} if {
	concerned
	input.tool.open_world
	data.gateway.lib.data_guard.sound
	not data.gateway.lib.data_guard.clean
	not data.gateway.lib.data_guard.excepted
}

# The first condition of every rule above: of calls that it does not concern, this package has no say. Whether it is one is
# asked before anything else, settings included, so that other calls cost next to nothing.
concerned if {
	input.phase == "call"
	data.gateway.lib.data_guard.concerned
}
