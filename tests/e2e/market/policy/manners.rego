# METADATA
# title: What these servers can do and their agents may not
package gateway.policies.manners

import rego.v1

instead := {
	"books.create_table": "tables are made by migrations; write to those that are there",
	"everything.trigger-long-running-operation": "nobody waits here; ask for the sum",
	"files.move_file": "files stay where they are; write a new one",
	"git.git_reset": "what is staged stays staged; commit it",
	"memory.delete_entities": "nothing is forgotten; add an observation",
	"time.convert_time": "times are kept in UTC; ask for the current one",
}

deny contains {"id": "manners.instead", "msg": msg, "fact": "input.tool.fqn"} if {
	input.phase == "call"
	msg := instead[input.tool.fqn]
}

deny contains {
	"id": "manners.metadata",
	"msg": "the cloud's metadata is not fetched; name a page",
	"fact": "input.args.url",
} if {
	input.phase == "call"
	input.tool.fqn == "fetch.fetch"
	contains(input.args.url, "169.254.")
}
