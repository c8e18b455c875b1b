# METADATA
# title: Confidence, as the agent reports it
# description: Whether it says how sure it is, and whether that is enough. Where it does not speak of risk, sureness decides.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.confidence

import data.gateway.lib.settings as checks

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
