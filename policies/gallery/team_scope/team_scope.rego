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

allow contains {
	"id": "team_scope.granted",
	"msg": sprintf("the team %s allows its members this tool", [name]),
} if {
	concerned
	some name, team in data.gateway.lib.team_scope.teams
	data.gateway.lib.scope.matched(team.allow)
	data.gateway.lib.scope.matched(team.within)
}

deny contains {
	"id": "team_scope.settings",
	"msg": "data.house.team_scope is missing or cannot be read, so this call is not allowed until it can",
	"fact": "data.house.team_scope",
} if {
	concerned
	input.phase == "call"
	not data.gateway.lib.team_scope.sound
}

hint contains {
	"id": "team_scope.outside",
	"msg": sprintf("the team %s allows this tool, which is outside of what the team may give", [name]),
	"fact": sprintf("data.house.team_scope.teams.%s.within", [name]),
} if {
	concerned
	some name, team in data.gateway.lib.team_scope.teams
	data.gateway.lib.scope.matched(team.allow)
	not name in data.gateway.lib.team_scope.covering
}

# The first condition of every rule above: what this package may give. It has no say about other tools.
concerned if input.tool.effect in {"read", "write"}
