# METADATA
# title: What every loaded package says of one request
# description: >-
#   Gathers the partial sets that the packages below data.gateway.policies export, each under the name of its package,
#   so that no package can speak in another's name. Nothing is decided here: the gateway folds the answer (fault, deny,
#   no allow, requirement, allow, in this order), so adding a package can never loosen anything unless it exports allow.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.main

decision := {
	"allow": {name: reasons | reasons := data.gateway.policies[name].allow},
	"deny": {name: reasons | reasons := data.gateway.policies[name].deny},
	"require": {name: reasons | reasons := data.gateway.policies[name].require},
	"oblige": {name: reasons | reasons := data.gateway.policies[name].oblige},
	"hint": {name: reasons | reasons := data.gateway.policies[name].hint},
}
