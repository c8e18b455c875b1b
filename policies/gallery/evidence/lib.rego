# METADATA
# title: Evidence, as the gateway found it
# description: Which needs the named calls meet. The gateway has checked them; a tool's name is all that is read here.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.evidence

import data.gateway.lib.settings as checks

# Lists of tools of which at least one is among the calls that were named and succeeded.
shown contains tools if {
	some rule in data.house.evidence.rules
	some tools in rule.needs
	some call in input.evidence
	checks.covers(tools, call.tool)
}
