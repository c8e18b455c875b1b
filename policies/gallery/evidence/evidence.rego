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

import data.gateway.lib.settings as checks

deny contains {
	"id": "evidence.settings",
	"msg": "data.house.evidence is missing or cannot be read, so no call is allowed until it can",
	"fact": "data.house.evidence",
} if {
	concerned
	not sound
}

deny contains {
	"id": "evidence.missing",
	"msg": sprintf("evidence is missing: name the id of a call of this run that succeeded: %s", [need]),
	"fact": "input.evidence",
} if {
	concerned
	sound
	some rule in data.house.evidence.rules
	data.gateway.lib.scope.matched(rule.tools)
	some need, tools in rule.needs
	not tools in data.gateway.lib.evidence.shown
}

# The first condition of every rule above: of calls that it does not concern, this package has no say.
concerned if {
	input.phase == "call"
	not sound
}

concerned if {
	input.phase == "call"
	sound
	some rule in data.house.evidence.rules
	data.gateway.lib.scope.matched(rule.tools)
}

sound if {
	settings := data.house.evidence
	checks.known(settings, {"rules"})
	is_object(settings.rules)
	every _, rule in settings.rules {
		checks.known(rule, {"tools", "needs"})
		checks.patterns(rule.tools)
		is_object(rule.needs)
		every _, tools in rule.needs {
			checks.patterns(tools)
		}
	}
}
