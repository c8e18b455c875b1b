"""``ostiary policy check``: every rule of the lint names file and line, for a folder as for a single file."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.adapters.rego.layers import shipped
from gateway.cli.root import ostiary

HEAD = "package gateway.policies.p\n\n"
REASON = '{"id": "p.x", "msg": "m"}'
# Rule, the line it is found on, and a file in which it is the only thing wrong.
FAULTS = [
    ("GW000", 3, HEAD + f"deny contains {REASON} if {{"),
    ("GW001", 3, HEAD + f'deny contains {REASON} if not startswith(input.args.x, "a")\n'),
    (
        "GW002",
        4,
        HEAD + f'deny contains {REASON} if {{\n\thttp.send({{"method": "get", "url": "x"}}).status == 200\n}}\n',
    ),
    ("GW002", 3, HEAD + f"deny contains {REASON} if time.now_ns() > 5\n"),
    ("GW002", 3, HEAD + f'deny contains {REASON} if rand.intn("x", 2) == 1\n'),
    ("GW002", 3, HEAD + f'deny contains {REASON} if net.lookup_ip_addr("x")\n'),
    ("GW003", 3, HEAD + f'deny contains {REASON} if no.such_function("x") == "y"\n'),
    ("GW004", 5, HEAD + f"deny contains {REASON} if f(1)\n\nf(x) if f(x)\n"),
    ("GW005", 3, HEAD + 'deny contains {"msg": "m"} if input.args.x\n'),
    ("GW005", 3, HEAD + 'deny contains {"id": "p.x"} if input.args.x\n'),
    ("GW005", 3, HEAD + 'oblige contains {"id": "p.x"} if input.args.x\n'),
    ("GW005", 3, HEAD + "deny := true\n"),
    ("GW005", 4, HEAD + '\ndeny contains {"id": "p.x", "msg": input.args.x} if true\n'),
    ("GW007", 3, HEAD + "deny[msg] { msg := 1 }\n"),
    ("GW008", 1, "package gateway.policy.p\n\nx := 1\n"),
    ("GW008", 1, "package gateway.policies.limits\n\nx := 1\n"),
    ("GW008", 1, "package gateway.lib.scope.regex\n\nmatch(_, _) := true\n"),
    ("GW008", 1, "package gateway.lib.scope.granted\n\nx := 1\n"),
    ("GW015", 3, HEAD + f'deny contains {REASON} if input.tol.fqn == "x"\n'),
    ("GW015", 4, HEAD + f'deny contains {REASON} if {{\n\tinput["tool"]["efect"] == "money"\n}}\n'),
    ("GW015", 3, HEAD + f'deny contains {REASON} if object.get(input.tool, "efect", "") == "money"\n'),
    ("GW015", 3, HEAD + f'deny contains {REASON} if object.get(input, ["tool", "efect"], "") == "money"\n'),
    ("GW015", 5, HEAD + f'import input.tool as t\n\ndeny contains {REASON} if t.fqnn == "x"\n'),
    ("GW015", 3, HEAD + f"deny contains {REASON} if input.tool.labels.money\n"),
    ("GW015", 5, HEAD + f'deny contains {REASON} if odd\n\nodd if input.run.sums["a.b"].amount.eur > 3\n'),
]
# Nothing of this is wrong, whatever it looks like.
SOUND = [
    f"deny contains {REASON} if input.args.tol.anything.at_all\n",
    f'deny contains {REASON} if input.run.calls["a.b"] > 3\n',
    f'deny contains {REASON} if input.run.sums["a.b"]["amount.EUR"] > 3\n',
    f"deny contains {REASON} if input.run.calls[input.tool.fqn] > 3\n",
    f'deny contains {REASON} if {{\n\tsome name in ["phase", "kind"]\n\tinput[name] == "x"\n}}\n',
    f'deny contains {REASON} if object.get(input.args, ["a", "b"], 0) == 1\n',
    f"deny contains {REASON} if object.get(input.tool, input.tool.name, 0) == 1\n",
    f'deny contains {REASON} if {{\n\tthing := {{"tol": 1}}\n\tthing.tol == 1\n}}\n',
]


def check(path: Path) -> tuple[int, list[dict[str, object]]]:
    """Exit code and findings."""
    done = CliRunner().invoke(ostiary, ["policy", "check", str(path), "--json"])
    findings: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])["findings"]
    return done.exit_code, findings


def written(folder: Path, name: str, text: str) -> Path:
    """A file of a bundle."""
    path = folder / "rules" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(("rule", "line", "text"), FAULTS)
def test_each_fault_is_named_by_file_line_and_rule(tmp_path: Path, rule: str, line: int, text: str) -> None:
    """In the folder and in the file alone: the same one finding."""
    path = written(tmp_path, "p.rego", text)
    for asked in (path.parent, path):
        code, findings = check(asked)
        assert code == 1
        assert [(one["file"], one["line"], one["rule"]) for one in findings] == [("rules/p.rego", line, rule)]


@pytest.mark.parametrize("text", SOUND)
def test_what_may_be_there_is_no_finding(tmp_path: Path, text: str) -> None:
    """Below args everything may be, and so may what is reached by a name that is not written down."""
    assert check(written(tmp_path, "p.rego", HEAD + text)) == (0, [])


def test_a_typo_is_told_with_what_was_meant(tmp_path: Path) -> None:
    """The nearest member of the schema stands in the message."""
    path = written(tmp_path, "p.rego", HEAD + f'deny contains {REASON} if input.tool.efect == "money"\n')
    (finding,) = check(path)[1]
    assert str(finding["message"]).endswith("did you mean input.tool.effect?")


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("lib.rego", "package house.lib\n\nsmall if input.args.n < 5\n", None),
        ("lib.rego", "package house.lib\n\nsmall if input.tol\n", "GW015"),
        ("p_test.rego", "package gateway.tests.p\n\ntest_x if true\n", None),
        ("p_test.rego", 'package gateway.tests.p\n\ntest_x if 1 == 1 with input.tol as "x"\n', "GW015"),
        ("p_test.rego", "package gateway.policies.p\n\ntest_x if true\n", "GW008"),
        ("data.json", '{"house": {"payees": []}}', None),
        ("data.json", '{"gateway": {"limits": {"erp.pay": {"calls": 3}}}}', "GW000"),
        ("data.json", '{"a": 1, "a": 2}', "GW000"),
        ("data.json", '{"gateway": {"policies": {"p": {"allow": []}}}}', "GW000"),
        ("other.json", "{}", "GW000"),
        ("notes.txt", "", "GW000"),
        ("main.rego", "package gateway.main\n\ndecision := 5\n", "GW000"),
    ],
)
def test_a_library_tests_and_data_are_checked_alone(tmp_path: Path, name: str, text: str, rule: str | None) -> None:
    """Each as what its name says it is; a file that is no part of a bundle is refused, not passed over."""
    code, findings = check(written(tmp_path, name, text))
    assert [one["rule"] for one in findings] == ([rule] if rule else [])
    assert code == bool(rule)


def test_a_problem_of_data_names_file_and_path(tmp_path: Path) -> None:
    """There are no lines in a document that was read whole; its path says where."""
    path = written(tmp_path, "data.json", '{"gateway": {"limits": {"erp.pay": {"calls": 3}}}}')
    (finding,) = check(path)[1]
    assert str(finding["message"]).startswith("rules/data.json: data.gateway.limits.erp.pay.calls: ")


@pytest.mark.parametrize("name", ["authz/limits.rego", "lib/scope.rego", "authz/scope_test.rego", "main.rego"])
def test_a_shipped_file_is_checked_in_its_place(name: str) -> None:
    """It is not taken for a second file of its own package."""
    assert check(shipped() / name) == (0, [])
