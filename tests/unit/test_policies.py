"""The shipped Rego: sound, tested, covered; and what ``policy check`` and ``policy test`` find in bad bundles."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.rego import testing
from gateway.adapters.rego.layers import load, shipped
from gateway.adapters.rego.lists import idle, unmatched
from gateway.core.bundle import BundleError

P = "package gateway.policies.p\n"


def write(folder: Path, **files: str) -> Path:
    """A bundle directory; ``__`` in a name is ``/``, the last ``_`` before rego or json the dot."""
    for name, text in files.items():
        stem, _, suffix = name.replace("__", "/").rpartition("_")
        path = folder / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def found(folder: Path) -> list[tuple[str, int]]:
    """Rule and line of each finding."""
    return [(finding.rule, finding.line) for finding in testing.check(folder)]


def test_shipped_policies_have_no_findings() -> None:
    """What ships passes its own checks."""
    assert testing.check(shipped()) == []


def test_shipped_policies_pass_their_tests_and_are_covered() -> None:
    """Every test_ rule is true, and the tests evaluate every line."""
    report = testing.test(shipped(), 30.0)
    assert [result for result in report.results if not result.passed] == []
    assert len(report.results) >= 45
    assert report.passed
    assert [(item.file, item.missed) for item in report.coverage if item.missed] == []
    assert all(item.percent == 100.0 for item in report.coverage)


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ('deny contains {"id": "p.x", "msg": "m"} if not startswith(input.args.x, "a")\n', [("GW001", 2)]),
        ('deny contains {"id": "p.x", "msg": "m"} if {\n\tnot input.args.x in ["a"]\n}\n', [("GW001", 3)]),
        ('deny contains {"id": "p.x", "msg": "m"} if not input.args.x > 3\n', [("GW001", 2)]),
        ('deny contains {"id": "p.x", "msg": "m"} if not ok\n\nok if input.args.x > 3\n', []),
        ('deny contains {"id": "p.x", "msg": "m"} if not "x" in names\n\nnames contains "y" if input.args.y\n', []),
        ('deny contains {"id": "p.x", "msg": "m"} if time.now_ns() > 5\n', [("GW002", 2)]),
        ('deny contains {"id": "p.x", "msg": "m"} if http.send({}).status == 200\n', [("GW002", 2)]),
        ('deny contains {"id": "p.x", "msg": "m"} if crypto.sha256("x") == "y"\n', [("GW003", 2)]),
        (
            'deny contains {"id": "p.x", "msg": "m"} if f(1)\n\nf(x) if g(x)\n\ng(x) if f(x)\n',
            [("GW004", 4), ("GW004", 6)],
        ),
        ('deny contains {"id": "p.x"} if input.args.x\n', [("GW005", 2)]),
        ('deny contains {"msg": "m"} if input.args.x\n', [("GW005", 2)]),
        ('deny contains {"id": "p.x", "msg": sprintf("%s", [input.args.x])} if true\n', [("GW005", 2)]),
        ('deny contains {"id": sprintf("p.%s", ["x"]), "msg": "m"} if true\n', [("GW005", 2)]),
        ('deny contains {"id": "p.x", "msg": sprintf("%s", [input.tool.fqn])} if true\n', []),
        ("deny := true\n", [("GW005", 2)]),
        ("deny[msg] { msg := 1 }\n", [("GW007", 2)]),
        ('deny contains {"id": "p.x", "msg": "m"} if {\n', [("GW000", 3)]),
    ],
)
def test_lint(tmp_path: Path, text: str, findings: list[tuple[str, int]]) -> None:
    """Each unsafe construct is found on its line, and the safe way of writing it is not."""
    assert found(write(tmp_path, p_rego=P + text)) == findings


def test_calls_with_too_few_arguments_are_looked_at(tmp_path: Path) -> None:
    """They parse; what is asked of an argument is asked of none, and the findings of other lines are told."""
    calls = ("count()", "floor()", "sprintf()", 'regex.match("a")', "is_array()")
    body = "".join(f"\t{call}\n" for call in calls)
    text = f'deny contains {{"id": "p.x", "msg": "m"}} if {{\n{body}\tcount(input.args.x)\n\tlower(input.args.x)\n}}\n'
    assert found(write(tmp_path, p_rego=P + text)) == [("GW010", 5), ("GW014", 8), ("GW009", 9)]


@pytest.mark.parametrize(
    "package", ["gateway.policies", "gateway.policies.p.sub", "gateway", "gateway.policy.p", "gateway.tests.p"]
)
def test_packages_that_would_never_be_asked(tmp_path: Path, package: str) -> None:
    """A deny in the wrong package must not look as if it were in force."""
    assert found(write(tmp_path, p_rego=f"package {package}\n\nx := 1\n")) == [("GW008", 1)]


@pytest.mark.parametrize("package", ['house["a.b"]', 'gateway.policies["a.b"]', 'house["a\\u002eb"]', "house[`a.b`]"])
def test_a_dot_inside_of_a_package_name(tmp_path: Path, package: str) -> None:
    """What reads it would be taken for reading another one, and its denial remembered for other arguments."""
    reader = P + 'deny contains {"id": "p.x", "msg": "m"} if data.house["a.b"].bad\n'
    folder = write(tmp_path, p_rego=reader, lib_rego=f"package {package}\n\nbad if input.args.n == 1\n")
    rules = {finding.rule for finding in testing.check(folder) if finding.file.endswith("lib.rego")}
    assert rules in ({"GW008"}, {"GW000"})  # the latter where it is no package name at all


def test_second_file_of_a_package(tmp_path: Path) -> None:
    """The engine would skip its rules, so it is refused."""
    assert found(write(tmp_path, a_rego=P + "x := 1\n", b_rego=P + "y := 1\n")) == [("GW008", 1)]


def test_data_cannot_stand_in_for_rules(tmp_path: Path) -> None:
    """A data file at the path of a package would replace its rules."""
    folder = write(tmp_path, p_rego=P + "x := 1\n", data_json='{"gateway": {"policies": {"p": {"allow": []}}}}')
    (finding,) = testing.check(folder)
    assert "data.gateway.policies" in finding.message


def test_data_cannot_make_up_packages(tmp_path: Path) -> None:
    """Data below gateway.policies would speak as a package of its own."""
    forged = '{"gateway": {"policies": {"z": {"allow": [{"id": "z.z", "msg": "m"}]}}}}'
    (finding,) = testing.check(write(tmp_path, data_json=forged))
    assert "data.gateway.policies" in finding.message


def test_tests_that_fail_hang_or_crash_do_not_stop_the_others(tmp_path: Path) -> None:
    """Each is reported, with why."""
    text = (
        "package gateway.tests.p\n\nf(x) := g(x)\n\ng(x) := f(x)\n\ntest_ok if true\n\ntest_no if false\n\n"
        "test_error if 1 / 0 == 1\n\ntest_crash if f(1)\n\ntest_hang if {\n\tcount([1 |\n"
        "\t\tsome a in numbers.range(1, 3000)\n\t\tsome b in numbers.range(1, 3000)\n"
        "\t\tsome c in numbers.range(1, 3000)\n\t\ta * b == c\n\t]) > 0\n}\n\ntest_last if true\n"
    )
    report = testing.test(write(tmp_path, p_rego=P + "x := 1\n", p_test_rego=text), 1.0)
    assert not report.passed
    outcome = {result.rule.rpartition("_")[2]: (result.passed, result.detail) for result in report.results}
    assert outcome.pop("ok") == (True, "")
    assert outcome.pop("last") == (True, "")
    assert outcome.pop("no") == (False, "not true")
    assert "divide by zero" in outcome.pop("error")[1]
    assert outcome == {"crash": (False, "the engine crashes"), "hang": (False, "the engine hangs")}


def test_no_tests_is_no_pass(tmp_path: Path) -> None:
    """An empty test run proves nothing."""
    assert not testing.test(write(tmp_path, p_rego=P + "x := 1\n")).passed


def test_layers_join_and_the_revision_covers_everything(tmp_path: Path) -> None:
    """Data of layers and overlay join; any change is another revision; tests are not part of it."""
    folder = write(tmp_path, data_json='{"gateway": {"limits": {}}}', sub__data_json='{"x": 1}')
    overlay = {"gateway": {"scope": {"agents": {"a": {"allow": ["x.*"]}}}}}
    one = load([shipped(), folder], overlay)
    assert one.data == '{"gateway":{"limits":{},"scope":{"agents":{"a":{"allow":["x.*"]}}}},"sub":{"x":1}}'
    assert not any(module.is_test for module in one.modules)
    assert load([shipped(), folder], overlay).revision == one.revision
    assert load([shipped(), folder]).revision != one.revision
    write(tmp_path, x_test_rego="package gateway.tests.x\n")
    assert load([shipped(), folder], overlay).revision == one.revision
    write(tmp_path, x_rego="package x\n")
    assert load([shipped(), folder], overlay).revision != one.revision


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a__data_json": '{"x": 1}', "data_json": '{"a": {"x": 2}}'}, "is already set by"),
        ({"data_json": '{"x": 1, "x": 2}'}, "same key twice"),
        ({"data_json": "[]"}, "JSON object"),
        ({"data_json": "{"}, "data.json"),
        ({"data_json": '{"x": NaN}'}, "NaN"),
        ({"limits_json": "{}"}, "named data.json"),
    ],
)
def test_bad_data_is_refused_by_file(tmp_path: Path, files: dict[str, str], words: str) -> None:
    """Nothing is silently overridden or ignored."""
    with pytest.raises(BundleError, match=words):
        load([write(tmp_path, **files)])


def test_links_that_leave_the_bundle_are_refused(tmp_path: Path) -> None:
    """A bundle is what is in it."""
    outside = write(tmp_path / "out", data_json='{"secret": 1}')
    inside = write(tmp_path / "in", p_rego=P)
    (inside / "data.json").symlink_to(outside / "data.json")
    with pytest.raises(BundleError, match="leads out"):
        load([inside])


def test_unreadable_bundles_are_refused(tmp_path: Path) -> None:
    """Missing, not UTF-8, too large."""
    with pytest.raises(BundleError, match="no such directory"):
        load([tmp_path / "missing"])
    (tmp_path / "p.rego").write_bytes(b"package \xff")
    with pytest.raises(BundleError, match="UTF-8"):
        load([tmp_path])
    (tmp_path / "p.rego").write_bytes(b"#" * (17 * 1024 * 1024))
    with pytest.raises(BundleError, match="more than"):
        load([tmp_path])


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"scope": {"agents": {"a": {"denny": ["erp.x"]}}}}, "scope.agents.a.denny"),
        ({"scope": {"agents": {"a": {"deny": ["erp.purge "]}}}}, "scope.agents.a.deny.0"),
        ({"scope": {"agents": {"a": {"deny": ["erp.x", "erp.[a"]}}}}, "scope.agents.a.deny.1"),
        ({"scope": {"users": {"a": {"deny": ["a,b"]}}}}, "scope.users.a.deny.0"),
        ({"scope": {"users": {"a": {"deny": [""]}}}}, "scope.users.a.deny.0"),
        ({"scope": {"users": {"a": {"deny": ["{a,b"]}}}}, "scope.users.a.deny.0"),
        ({"scope": {"groups": {"g": {"deny": "erp.x"}}}}, "scope.groups.g.deny"),
        ({"scope": {"groups": {"g": {"deny": [1]}}}}, "scope.groups.g.deny.0"),
        ({"scope": {"groups": {"g": ["erp.x"]}}}, "scope.groups.g"),
        ({"scope": {"groups": {"*": {"deny": ["erp.x"]}}}}, "scope.groups.*"),
        ({"scope": {"agents": {"a ": {"deny": ["erp.x"]}}}}, "scope.agents.a "),
        ({"scope": {"agents": {"clerk*": {"deny": ["erp.x"]}}}}, "scope.agents.clerk*"),
        ({"scope": {"agent": {"a": {"deny": ["erp.x"]}}}}, "scope.agent"),
        ({"scope": []}, "scope"),
        ({"scopes": {}}, "scopes"),
        ({"sandbox": {"accept": ["memory"]}}, "sandbox.accept"),
        ({"sandbox": {"accept_missing": ["sandbox"]}}, "sandbox.accept_missing.0"),
        ({"limit": {}}, "limit"),
        ({"limits": {"erp.pay": False}}, "limits.erp.pay"),
        ({"limits": {"erp.*": {"calls_per_run": 1}}}, "limits.erp.*"),
        ({"limits": {"pay": {"calls_per_run": 1}}}, "limits.pay"),
        ({"limits": {"erp.pay ": {"calls_per_run": 1}}}, "limits.erp.pay "),
        ({"limits": {"erp.pay": {}}}, "limits.erp.pay"),
        ({"limits": {"erp.pay": {"calls_per_run": "1"}}}, "limits.erp.pay.calls_per_run"),
        ({"limits": {"erp.pay": {"calls_per_run": True}}}, "limits.erp.pay.calls_per_run"),
        ({"limits": {"erp.pay": {"calls_per_run": None}}}, "limits.erp.pay.calls_per_run"),
        ({"limits": {"erp.pay": {"calls_per_run": -1}}}, "limits.erp.pay.calls_per_run"),
        ({"limits": {"erp.pay": {"calls": 1}}}, "limits.erp.pay.calls"),
        ({"limits": {"erp.pay": {"sums_per_run": {}}}}, "limits.erp.pay.sums_per_run"),
        ({"limits": {"erp.pay": {"sums_per_run": {"amount.eur": 1}}}}, "limits.erp.pay.sums_per_run.amount.eur"),
        ({"limits": {"erp.pay": {"sums_per_run": {"amount": 1.5}}}}, "limits.erp.pay.sums_per_run.amount"),
    ],
)
def test_mistyped_data_of_the_shipped_packages_is_refused(tmp_path: Path, data: dict[str, Any], place: str) -> None:
    """What would otherwise silently allow is named by file and path, whether it stands in a file or in the settings."""
    folder = write(tmp_path, data_json=json.dumps({"gateway": data}))
    with pytest.raises(BundleError) as caught:
        load([shipped(), folder])
    assert all(problem.startswith(f"{tmp_path.name}/data.json: data.gateway.") for problem in caught.value.problems)
    assert any(f"data.gateway.{place}: " in problem for problem in caught.value.problems)
    with pytest.raises(BundleError, match=r"^\[policy\.data\]: data\.gateway\."):
        load([shipped()], {"gateway": data})
    assert load([folder]).data  # without the shipped packages it means nothing


def test_well_typed_data_loads() -> None:
    """Every form of entry that is documented, for everybody and for one."""
    patterns = ["erp.pay", "erp.*", "*", "e?p.[ab]*", "erp.[!a]x", "{erp,crm}.read_*", "erp.{a,b.c}"]
    lists = {"allow": patterns, "deny": patterns}
    scope = {
        "agents": {"*": lists, "a": {}},
        "users": {"*": lists, "ada@example.org": {"deny": []}},
        "groups": {"g": lists},
    }
    limits = {
        "erp.pay": {"calls_per_run": 0, "sums_per_run": {"amount.EUR": 1, "lines": 9}},
        "a-b_c.Find.x": {"calls_per_run": 1},
    }
    sandbox = {"accept_missing": ["memory", "pids", "cpu", "inodes", "seccomp"]}
    data = {"gateway": {"scope": scope, "limits": limits, "sandbox": sandbox}, "house": {"anything": [1]}}
    assert json.loads(load([shipped()], data).data) == data


def test_entries_that_match_no_tool() -> None:
    """Names are told apart from patterns; both with their place."""
    tools = ["erp.pay", "erp.read_a", "crm.x"]
    matching = ["erp.pay", "erp.*", "e?p.pay", "{crm,hr}.x", "erp.read_[a-c]", "*"]
    lists = {"allow": [*matching, "erp.pya"], "deny": ["erp.purge_*", "{hr,it}.*", "erp.read_[!a]", "erp.PAY"]}
    data = {"gateway": {"scope": {"agents": {"a": lists}}, "limits": {"erp.pay": {}, "erp.send": {}}}}
    place = "data.gateway.scope.agents.a"
    assert unmatched(data, tools) == [
        f"{place}.allow: erp.pya",
        f"{place}.deny: erp.PAY",
        "data.gateway.limits: erp.send",
    ]
    assert idle(data, tools) == [f"{place}.deny: {odd}" for odd in ("erp.purge_*", "{hr,it}.*", "erp.read_[!a]")]
    assert (unmatched({}, tools), idle({}, tools)) == ([], [])
