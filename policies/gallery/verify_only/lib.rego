# METADATA
# title: Verify only, read from the tool
# description: What the settings must look like, whom they are about, and which calls change something.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.verify_only

import data.gateway.lib.settings as checks

# An agent that may only verify.
of_agent if {
	listed
	checks.covers(data.house.verify_only.agents, input.agent.id)
}

listed if checks.patterns(data.house.verify_only.agents)

harmless if input.tool.effect == "read"

harmless if {
	sound
	input.tool.effect == "write"
	data.gateway.lib.scope.matched(data.house.verify_only.checks)
}

to_be_seen if {
	sound
	data.house.verify_only.changes == "ask"
	not harmless
}

to_be_seen if {
	sound
	data.house.verify_only.reads == "ask"
	harmless
}

sound if {
	settings := data.house.verify_only
	checks.known(settings, {"agents", "checks", "changes", "reads", "people"})
	settings.changes in {"hide", "ask"}
	settings.reads in {"free", "ask"}
	checks.people(settings.people)
	listed
	is_array(settings.checks)
	checks.patterns(array.concat(settings.checks, ["x"]))
}
