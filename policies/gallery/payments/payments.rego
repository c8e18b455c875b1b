# METADATA
# title: Payments
# description: >-
#   Bounds what may be paid by the tools of data.house.payments: a hard cap for each call and each run, in listed
#   currencies only; small amounts go alone (autopilot) up to a sum, larger ones need a person, large ones two; all
#   within office hours. Amounts are the measure that the catalogue declares, in minor units. Nothing is allowed here.
# custom:
#   data: data.house.payments
#   exports: [deny, require]
#   ids:
#     - payments.settings
#     - payments.amount
#     - payments.cap_per_call
#     - payments.cap_per_run
#     - payments.office_hours
#     - payments.approval
#     - payments.second_signature
#     - payments.split
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.payments

deny contains {
	"id": "payments.settings",
	"msg": "data.house.payments is missing or cannot be read, so this call is not allowed until it can",
	"fact": "data.house.payments",
} if {
	concerned
	not data.gateway.lib.payments.sound
}

deny contains {
	"id": "payments.amount",
	"msg": "the amount of this payment, or what the run has paid so far, cannot be counted in a currency that is listed",
	"fact": "input.run.amounts",
} if {
	concerned
	data.gateway.lib.payments.sound
	not data.gateway.lib.payments.counted
}

deny contains {
	"id": "payments.cap_per_call",
	"msg": sprintf("%v %s is more than the %v that one payment may be", [amount, currency, most]),
	"fact": sprintf("data.house.payments.currencies.%s.per_call", [currency]),
} if {
	concerned
	some currency, amount in data.gateway.lib.payments.amounts
	most := data.house.payments.currencies[currency].per_call
	amount > most
}

deny contains {
	"id": "payments.cap_per_run",
	"msg": sprintf("the run has paid %v %s; with %v more it is over its cap of %v", [spent, currency, amount, most]),
	"fact": sprintf("data.house.payments.currencies.%s.per_run", [currency]),
} if {
	concerned
	some currency, amount in data.gateway.lib.payments.amounts
	spent := data.gateway.lib.payments.spent[currency]
	most := data.house.payments.currencies[currency].per_run
	spent + amount > most
}

deny contains {
	"id": "payments.office_hours",
	"msg": sprintf("payments are made from %v to %v o'clock on working days only", [hours.from, hours.to]),
	"fact": "data.house.payments.hours",
} if {
	concerned
	hours := data.house.payments.hours
	data.gateway.lib.payments.sound
	not data.gateway.lib.payments.within_hours
}

require contains {
	"id": "payments.approval",
	"msg": sprintf("payments of more than %v %s need a person", [most, currency]),
	"roles": object.get(data.house.payments, "roles", []),
	"exclude": ["requester"],
} if {
	concerned
	some currency, amount in data.gateway.lib.payments.amounts
	most := data.house.payments.currencies[currency].autopilot
	amount > most
}

require contains {
	"id": "payments.second_signature",
	"msg": sprintf("payments of more than %v %s need two persons", [most, currency]),
	"quorum": 2,
	"roles": object.get(data.house.payments, "roles", []),
	"exclude": ["requester"],
} if {
	concerned
	some currency, amount in data.gateway.lib.payments.amounts
	most := data.house.payments.currencies[currency].second
	amount > most
}

require contains {
	"id": "payments.split",
	"msg": sprintf("the run has paid %v %s; what adds up to more than %v needs a person", [spent, currency, most]),
	"roles": object.get(data.house.payments, "roles", []),
	"exclude": ["requester"],
} if {
	concerned
	some currency, amount in data.gateway.lib.payments.amounts
	spent := data.gateway.lib.payments.spent[currency]
	most := data.house.payments.currencies[currency].alone_per_run
	spent + amount > most
}

# The first condition of every rule above: of calls that it does not concern, this package has no say. Whether it is one is
# asked before anything else, settings included, so that other calls cost next to nothing.
concerned if {
	input.phase == "call"
	data.gateway.lib.payments.concerned
}
