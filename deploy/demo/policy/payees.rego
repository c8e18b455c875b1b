# METADATA
# title: Who may be paid
# description: >-
#   Money goes to accounts of data.house.payees only: what a vendor's note, a mail or an agent says of an account counts
#   for nothing.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.payees

deny contains {
	"id": "payees.unknown_account",
	"msg": "the money would go to an account that is no approved payee's",
	"fact": "data.house.payees",
} if {
	input.phase == "call"
	input.tool.fqn == "pay.transfer"
	not known
}

known if {
	some iban in data.house.payees
	iban == input.args.iban
}
