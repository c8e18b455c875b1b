# METADATA
# title: What a sandbox may lack
# description: >-
#   data.gateway.sandbox.accept_missing lists the caps that the sandbox of a code tool may be without on this host, of
#   memory, pids, cpu, inodes, seccomp. It is empty unless an operator writes it: code is refused where one is missing.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.sandbox

default accept_missing := []

accept_missing := data.gateway.sandbox.accept_missing

oblige contains {"id": "sandbox.accept_missing", "kind": "sandbox", "accept_missing": accept_missing} if {
	input.phase == "call"
	input.tool.connector == "code"
}
