package gateway.tests.lib_settings

import data.gateway.lib.settings

test_known_keys_only if {
	settings.known({}, {"a"})
	settings.known({"a": 1}, {"a", "b"})
	every wrong in [{"c": 1}, {"a": 1, "c": 1}, [], "a", 7, null, false] {
		not settings.known(wrong, {"a", "b"})
	}
}

test_whole_numbers if {
	every number in [0, 1, 9007199254740992] {
		settings.whole(number)
	}
	every wrong in [-1, 1.5, "1", null, [], {}, false, 9007199254740994] {
		not settings.whole(wrong)
	}
}

test_percentages if {
	settings.percent(0)
	settings.percent(100)
	not settings.percent(101)
	not settings.percent("50")
}

test_lists_of_names if {
	settings.names([])
	settings.names(["a b", "c"])
	every wrong in [[""], ["a", 7], "a", {"a": "b"}, null] {
		not settings.names(wrong)
	}
}

test_patterns if {
	settings.patterns(["erp.*", "a-b_c.d?"])
	every wrong in [[], [""], ["{a,b}"], ["a", 7], "erp.*", {"a": "erp.*"}, ["a\nb"], ["a b"], ["a,b"], ["a,"], null] {
		not settings.patterns(wrong)
	}
}

test_a_pattern_covers_a_name if {
	every list in [["erp.pay"], ["erp.*"], ["*"], ["x", "e?p.pay"], ["*erp_*", "*"], ["*?.*", "erp*", "*y"]] {
		settings.covers(list, "erp.pay")
	}
	every list in [[], ["erp"], ["ERP.*"], ["erp.pay?"], ["crm.*", "x"], ["erp?pay."], ["e.p.pay"]] {
		not settings.covers(list, "erp.pay")
	}
	not settings.covers([], "")
}

test_people if {
	every rule in [{}, {"quorum": 2}, {"roles": ["cfo"], "ttl_s": 60}] {
		settings.people(rule)
	}
	every wrong in [
		null,
		[],
		{"quorum": 0},
		{"quorum": 1.5},
		{"quorum": "two"},
		{"people": 2},
		{"roles": "cfo"},
		{"roles": [7]},
		{"ttl_s": -1},
	] {
		not settings.people(wrong)
	}
}
