# METADATA
# title: Confidence, as the agent reports it
# description: What the settings must look like, whether the agent says how sure it is, and whether that is enough.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.confidence

import data.gateway.lib.settings as checks

# A call of one of the tools and effect classes; any call where it cannot be read which they are.
concerned if not listed

concerned if {
	listed
	input.tool.effect in data.house.confidence.effects
	checks.covers(data.house.confidence.tools, input.tool.fqn)
}

listed if {
	checks.patterns(data.house.confidence.tools)
	is_array(data.house.confidence.effects)
	count({effect | some effect in data.house.confidence.effects} - {"read", "write", "destructive", "money"}) == 0
}

sound if {
	settings := data.house.confidence
	keys := {"tools", "effects", "silent", "people", "deny_below", "ask_below", "ask_above_risk", "deny_above_risk"}
	checks.known(settings, keys)
	count(settings) == count(keys)
	listed
	settings.silent in {"ask", "deny"}
	checks.people(settings.people)
	every key in ["deny_below", "ask_below", "ask_above_risk", "deny_above_risk"] {
		checks.percent(settings[key])
	}
	settings.deny_below <= settings.ask_below
	settings.ask_above_risk <= settings.deny_above_risk
}

# Where it does not speak of risk, sureness decides.
told if checks.percent(input.risk.confidence_pct)

sure if {
	told
	input.risk.confidence_pct >= data.house.confidence.ask_below
	not risky
}

risky if input.risk.score_pct > data.house.confidence.ask_above_risk

# For the people who are asked.
doubt := sprintf("the agent puts the risk of this call at %v of 100", [input.risk.score_pct]) if {
	risky
} else := sprintf("the agent is %v %% sure of this call", [input.risk.confidence_pct]) if {
	told
} else := "the agent does not say how sure it is of this call"
