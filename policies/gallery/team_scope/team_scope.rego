# METADATA
# title: Scope by team
# description: >-
#   Extends the shipped scope: teams keep allow lists of their own, within a boundary that the organisation sets for each
#   of them in data.house.team_scope. A team can give its members and its agents tools that read or write, and never one
#   that destroys or moves money: those stay with the lists of data.gateway.scope, whose deny lists count all the same.
#   This package exports allow, as giving is its point.
# custom:
#   data: data.house.team_scope
#   exports: [allow, deny, hint]
#   ids:
#     - team_scope.granted
#     - team_scope.settings
#     - team_scope.outside
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.team_scope

import data.gateway.lib.settings as checks

allow contains {
	"id": "team_scope.granted",
	"msg": sprintf("the team %s allows its members this tool", [name]),
} if {
	concerned
	some name, team in teams
	data.gateway.lib.scope.matched(team.allow)
	data.gateway.lib.scope.matched(team.within)
}

deny contains {
	"id": "team_scope.settings",
	"msg": "data.house.team_scope is missing or cannot be read, so no call is allowed until it can",
	"fact": "data.house.team_scope",
} if {
	concerned
	input.phase == "call"
	not sound
}

hint contains {
	"id": "team_scope.outside",
	"msg": sprintf("the team %s allows this tool, which is outside of what the team may give", [name]),
	"fact": sprintf("data.house.team_scope.teams.%s.within", [name]),
} if {
	concerned
	some name, team in teams
	data.gateway.lib.scope.matched(team.allow)
	not name in covering
}

# The first condition of every rule above: of calls that it does not concern, this package has no say.
concerned if not sound

concerned if {
	input.tool.effect in {"read", "write"}
	count(teams) > 0
}

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
