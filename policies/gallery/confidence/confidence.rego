# METADATA
# title: Confidence routing
# description: >-
#   What an agent says of its own call (input.risk: how sure it is, how risky it thinks the call is) may only lower its
#   autonomy, by data.house.confidence: an agent that is not sure, or says nothing, is sent to people, and one that is
#   very unsure is refused. However sure it is, nothing is allowed here and no approval of another package is dropped.
# custom:
#   data: data.house.confidence
#   exports: [deny, require]
#   ids:
#     - confidence.settings
#     - confidence.too_low
#     - confidence.too_risky
#     - confidence.silent
#     - confidence.ask
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.confidence

deny contains {
	"id": "confidence.settings",
	"msg": "data.house.confidence is missing or cannot be read, so this call is not allowed until it can",
	"fact": "data.house.confidence",
} if {
	concerned
	not data.gateway.lib.confidence.sound
}

deny contains {
	"id": "confidence.too_low",
	"msg": sprintf("the agent is %v %% sure of this call; below %v %% it is not made", [said, least]),
	"fact": "input.risk.confidence_pct",
} if {
	concerned
	data.gateway.lib.confidence.sound
	said := input.risk.confidence_pct
	least := data.house.confidence.deny_below
	said < least
}

deny contains {
	"id": "confidence.too_risky",
	"msg": sprintf("the agent puts the risk of this call at %v of 100; above %v it is not made", [said, most]),
	"fact": "input.risk.score_pct",
} if {
	concerned
	data.gateway.lib.confidence.sound
	said := input.risk.score_pct
	most := data.house.confidence.deny_above_risk
	said > most
}

deny contains {
	"id": "confidence.silent",
	"msg": "the agent must say how sure it is of this call",
	"fact": "input.risk.confidence_pct",
} if {
	concerned
	data.gateway.lib.confidence.sound
	data.house.confidence.silent == "deny"
	not data.gateway.lib.confidence.told
}

require contains {
	"id": "confidence.ask",
	"msg": doubt,
	"quorum": object.get(people, "quorum", 1),
	"roles": object.get(people, "roles", []),
	"ttl_s": object.get(people, "ttl_s", 86400),
	"exclude": ["requester"],
} if {
	concerned
	data.gateway.lib.confidence.sound
	people := data.house.confidence.people
	not data.gateway.lib.confidence.sure
	doubt := data.gateway.lib.confidence.doubt
}

# The first condition of every rule above: of calls that it does not concern, this package has no say. Whether it is one is
# asked before anything else, settings included, so that other calls cost next to nothing.
concerned if {
	input.phase == "call"
	data.gateway.lib.confidence.concerned
}
