# METADATA
# title: Evidence
# description: >-
#   Calls that must be supported, from data.house.evidence: a call of these tools names earlier calls of its run (their
#   call ids, as evidence), and among those that the gateway finds to have succeeded there must be one for each need.
#   Nothing is allowed here.
# custom:
#   data: data.house.evidence
#   exports: [deny]
#   ids:
#     - evidence.settings
#     - evidence.missing
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.evidence

deny contains {
	"id": "evidence.settings",
	"msg": "data.house.evidence is missing or cannot be read, so this call is not allowed until it can",
	"fact": "data.house.evidence",
} if {
	concerned
	not data.gateway.lib.evidence.sound
}

deny contains {
	"id": "evidence.missing",
	"msg": sprintf("evidence is missing: name the id of a call of this run that succeeded: %s", [need]),
	"fact": "input.evidence",
} if {
	concerned
	data.gateway.lib.evidence.sound
	some rule in data.gateway.lib.evidence.rules
	some need, tools in rule.needs
	not tools in data.gateway.lib.evidence.shown
}

# The first condition of every rule above: of calls that it does not concern, this package has no say. Whether it is one is
# asked before anything else, settings included, so that other calls cost next to nothing.
concerned if {
	input.phase == "call"
	data.gateway.lib.evidence.concerned
}
