# METADATA
# title: Autonomy scope
# description: >-
#   Default deny: a tool is there for a caller when the allow lists of both sides, agent and person, cover it and no deny
#   list does. How lists are read: lib/scope.rego.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.authz

allow contains {"id": "scope.granted", "msg": "the allow lists cover this tool"} if data.gateway.lib.scope.granted

deny contains {
	"id": "scope.denied",
	"msg": sprintf("a deny list takes %s out of scope", [input.tool.fqn]),
} if {
	data.gateway.lib.scope.denied
}

hint contains {
	"id": "scope.not_granted",
	"msg": sprintf("no allow list of this agent covers %s; it would have to stand in the named list", [input.tool.fqn]),
	"fact": data.gateway.lib.scope.agent_path,
} if {
	not data.gateway.lib.scope.agent_granted
}

hint contains {
	"id": "scope.not_granted",
	"msg": sprintf("no allow list of this person covers %s; it would have to stand in the named list", [input.tool.fqn]),
	"fact": data.gateway.lib.scope.person_path,
} if {
	not data.gateway.lib.scope.person_granted
}

hint contains {
	"id": "scope.money_by_wildcard",
	"msg": "a tool that moves money must be allowed by an entry that begins with the name of its server and a dot",
	"fact": data.gateway.lib.scope.agent_path,
} if {
	not data.gateway.lib.scope.agent_granted
	data.gateway.lib.scope.agent_lacks_server
}

hint contains {
	"id": "scope.money_by_wildcard",
	"msg": "a tool that moves money must be allowed by an entry that begins with the name of its server and a dot",
	"fact": data.gateway.lib.scope.person_path,
} if {
	not data.gateway.lib.scope.person_granted
	data.gateway.lib.scope.person_lacks_server
}
