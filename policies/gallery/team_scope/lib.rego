# METADATA
# title: Teams of the caller
# description: What the settings must look like, and which teams a caller is of.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.team_scope

import data.gateway.lib.settings as checks

# The teams that the person is in and that the agent, where one calls, works for.
teams[name] := team if {
	sound
	some name, team in data.house.team_scope.teams
	some group in data.gateway.lib.scope.person.groups
	group in team.groups
	name in of_caller
}

of_caller contains name if {
	sound
	input.principal.kind == "person"
	some name, _ in data.house.team_scope.teams
}

of_caller contains name if {
	sound
	input.principal.kind == "agent"
	some name, team in data.house.team_scope.teams
	input.agent.id in team.agents
}

covering contains name if {
	some name, team in teams
	data.gateway.lib.scope.matched(team.within)
}

sound if {
	settings := data.house.team_scope
	checks.known(settings, {"teams"})
	is_object(settings.teams)
	every _, team in settings.teams {
		checks.known(team, {"groups", "agents", "within", "allow"})
		checks.names(team.groups)
		checks.names(team.agents)
		checks.patterns(team.within)
		checks.patterns(team.allow)
	}
}
