# METADATA
# title: An operator's own rule
package gateway.policies.quiet

deny contains {
	"id": "quiet.shouting",
	"msg": "notes are not shouted",
	"fact": "input.args.text",
} if {
	input.phase == "call"
	input.tool.fqn == "erp.add_note"
	regex.match(`^[^a-z]*$`, input.args.text)
}
