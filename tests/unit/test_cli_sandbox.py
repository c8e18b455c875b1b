"""``ostiary sandbox`` without a gateway: probe and run, for people and for machines."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.root import ostiary
from gateway.core.sandbox import Capabilities
from gateway.parts import boxes
from tests.fakes.sandbox import FULL


def ask(*words: str, stdin: str = "") -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(ostiary, ["sandbox", *words], input=stdin)


def last(result: Result) -> dict[str, Any]:
    """The JSON of the last line of stdout."""
    document: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return document


@pytest.fixture(scope="module")
def accepted() -> list[str]:
    """Options that accept what this host lacks; skips where no box can be started."""
    seen = last(ask("probe", "--json"))
    if seen["backend"] is None:
        pytest.skip(reason=f"no sandbox here: {seen['fixes']}")
    return [word for name in seen["missing"] for word in ("--accept-missing", name)]


def test_probe_says_what_is_held(accepted: list[str]) -> None:
    """One line for people; for machines each capability with how it is held."""
    people, machine = ask("probe"), last(ask("probe", "--json"))
    assert people.exit_code == 0
    assert people.stdout.startswith(f"{machine['backend']}, boxes under ")
    assert machine["ok"] is (not accepted)
    assert machine.keys() >= {"ok", "backend", "held", "missing", "fixes", "seccomp", "own_uid"}


def test_run_gives_the_programs_outputs(accepted: list[str], tmp_path: Path) -> None:
    """Outputs come out as the program's own, escaped where a terminal would obey them; the exit code follows it."""
    done = ask("run", "-", *accepted, stdin="import sys\nprint('a\\x1b[31m')\nprint('b', file=sys.stderr)")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "a\\x1b[31m\n", "b\n")
    assert ask("run", "-", *accepted, stdin="raise SystemExit(3)").exit_code == 1
    (tmp_path / "in.json").write_text("[1, 2]")
    (tmp_path / "main.py").write_text("import json, sys\nprint(sum(json.load(sys.stdin)))")
    words = ["run", str(tmp_path / "main.py"), "--input", str(tmp_path / "in.json"), *accepted, "--json"]
    document = last(ask(*words))
    assert (document["ended"], document["exit_code"], document["stdout"]) == ("exited", 0, "3\n")


def test_run_says_which_cap_killed(accepted: list[str]) -> None:
    """The caps are options; the one that bit is named on stderr."""
    done = ask("run", "-", "--wall-s", "0.3", *accepted, stdin="import time; time.sleep(9)")
    assert (done.exit_code, done.stderr) == (1, "ostiary: the box was killed: wall\n")


@pytest.mark.parametrize("words", [["probe"], ["run", "-"]])
def test_no_sandbox_is_one_clear_line(words: list[str], tmp_path: Path) -> None:
    """A bubblewrap that cannot work: the reason, what would mend it, exit code 1."""
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho bwrap: no >&2; exit 1\n")
    program.chmod(0o755)
    done = ask(*words, "--bwrap", str(program), stdin="print(1)")
    assert done.exit_code == 1
    assert "bubblewrap cannot make a box: bwrap: no" in done.output


def test_the_line_that_accepts_names_what_was_accepted_before() -> None:
    """What policy data accepts already stays in the printed line, as it replaces the old one."""
    seen = Capabilities("bwrap 1", missing=("memory", "cpu"), fixes={"memory": "root", "cpu": "root"})
    found = list(boxes._missing(seen, ["cpu", "pids"]))
    assert [(one.part, one.ok) for one in found] == [("sandbox:memory", False), ("sandbox:cpu", True)]
    assert found[0].fix == (
        'root; or accept it, in gateway.toml: [policy.data.gateway.sandbox] accept_missing = ["cpu", "pids", "memory"]'
    )
    assert boxes.summary(FULL).startswith("fake 1.0, boxes under user ids of their own; holds memory (cgroup2)")
    assert boxes.summary(Capabilities(None, fixes={"sandbox": "why: fix"})) == "none: why: fix"
