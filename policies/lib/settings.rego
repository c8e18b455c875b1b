# METADATA
# title: What settings must look like
# description: >-
#   Functions for packages that read settings of their own, such as data.house.payments. A setting that is mistyped must
#   deny, never be skipped: so each package says what its settings look like and denies where they do not.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.lib.settings

# An object that has no other keys than these.
known(thing, keys) if {
	is_object(thing)
	count(object.keys(thing) - keys) == 0
}

# A number without fraction, from 0 up to where engines still count exactly.
whole(number) if {
	is_number(number)
	number >= 0
	number == floor(number)
	number <= 9007199254740992
}

percent(number) if {
	whole(number)
	number <= 100
}

names(list) if {
	is_array(list)
	every name in list {
		is_string(name)
		name != ""
	}
}

# Names of tools or agents with * for any characters and ? for one; at least one of them.
patterns(list) if {
	is_array(list)
	count(list) > 0
	every pattern in list {
		is_string(pattern)
	}

	# All at once, as this is asked for every call.
	joined := concat(",", list)
	regex.match(`^[A-Za-z0-9_.*?-]+(,[A-Za-z0-9_.*?-]+)*$`, joined)
	count(split(joined, ",")) == count(list)
}

# Whether one of the patterns covers the name; for the tool of the input there is data.gateway.lib.scope.matched. Not by
# glob.match: OPA's own loses matches of alternatives with wildcards.
covers(list, name) if {
	count(list) > 0
	regex.match(concat("", ["(?s)^(?:", replace(replace(replace(concat("|", list), ".", `\.`), "*", ".*"), "?", "."), ")$"]), name)
}

# Who must agree: so many persons, in one of these roles (any, where none is named), within so many seconds.
people(rule) if {
	known(rule, {"quorum", "roles", "ttl_s"})
	positive(object.get(rule, "quorum", 1))
	positive(object.get(rule, "ttl_s", 1))
	names(object.get(rule, "roles", []))
}

positive(number) if {
	whole(number)
	number >= 1
}
