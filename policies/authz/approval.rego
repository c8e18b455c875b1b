# METADATA
# title: People in the loop
# description: >-
#   Which calls wait for people, from data.gateway.approval {tools: {NAME: RULE}, effects: {CLASS: RULE}, unattended:
#   [NAME]}. A RULE is {quorum, roles, ttl_s}, all optional: so many persons (1), in one of these roles (any), within so
#   many seconds. A tool's own rule wins over that of its effect class. A tool that moves money needs one person where no
#   rule says otherwise; only its full name in unattended lets it go alone. Settings that cannot be read deny the call.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.approval

require contains {
	"id": "approval.required",
	"msg": sprintf("%s needs the approval of people", [input.tool.fqn]),
	"quorum": object.get(rule, "quorum", 1),
	"roles": object.get(rule, "roles", []),
	"ttl_s": object.get(rule, "ttl_s", 86400),
	"exclude": ["requester"],
} if {
	input.phase == "call"
	well_formed
	not unattended
}

deny contains {
	"id": "approval.malformed",
	"msg": sprintf("what is set about approvals of %s cannot be read", [input.tool.fqn]),
	"fact": sprintf("data.gateway.approval.tools.%s", [input.tool.fqn]),
} if {
	input.phase == "call"
	not readable
}

readable if no_rule

readable if well_formed

no_rule if {
	sound
	rule == null
}

default settings := {}

settings := data.gateway.approval

sound if {
	is_object(settings)
	every key, value in settings {
		fits(key, value)
	}
}

fits("tools", value) if is_object(value)

fits("effects", value) if is_object(value)

fits("unattended", value) if is_array(value)

default tools := {}

tools := settings.tools if is_object(settings.tools)

default effects := {}

effects := settings.effects if is_object(settings.effects)

rule := object.get(tools, input.tool.fqn, of_template)

# What is read of a template falls under the template's rule, where it has none of its own.
of_template := object.get(tools, concat("", [input.tool.server, ".", input.tool.template]), of_effect)

of_template := of_effect if not input.tool.template

of_effect := object.get(effects, input.tool.effect, usual)

default usual := null

usual := {} if input.tool.effect == "money"

# An entry of a list, compared whole: no pattern lets a class of tools go alone.
unattended if {
	is_array(settings.unattended)
	some name in settings.unattended
	name == input.tool.fqn
}

well_formed if {
	sound
	is_object(rule)
	positive(object.get(rule, "quorum", 1))
	positive(object.get(rule, "ttl_s", 1))
	every key, _ in rule {
		key in {"quorum", "roles", "ttl_s"}
	}
	is_array(object.get(rule, "roles", []))
	every role in object.get(rule, "roles", []) {
		is_string(role)
	}
}

positive(number) if {
	is_number(number)
	number >= 1
	number == floor(number)
}
