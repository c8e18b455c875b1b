# METADATA
# title: Evidence, as the gateway found it
# description: What the settings must look like, and which needs the named calls meet. A tool's name is all that is read of them.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.evidence

import data.gateway.lib.settings as checks

# A call of one of the tools of a rule; any call where the rules' tools cannot be read.
concerned if not listed

concerned if count(rules) > 0

rules contains rule if {
	listed
	some rule in data.house.evidence.rules
	checks.covers(rule.tools, input.tool.fqn)
}

listed if {
	is_object(data.house.evidence.rules)
	every _, rule in data.house.evidence.rules {
		checks.patterns(rule.tools)
	}
}

sound if {
	settings := data.house.evidence
	checks.known(settings, {"rules"})
	listed
	every _, rule in settings.rules {
		checks.known(rule, {"tools", "needs"})
		is_object(rule.needs)
		count(rule.needs) > 0
		every _, tools in rule.needs {
			checks.patterns(tools)
		}
	}
}

# Lists of tools of which at least one is among the calls that were named and succeeded.
shown contains tools if {
	some rule in rules
	some tools in rule.needs
	some call in input.evidence
	checks.covers(tools, call.tool)
}
