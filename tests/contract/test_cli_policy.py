"""``ostiary policy`` on real Rego: what ``init`` writes is sound, and a bad rule is named by file and line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.root import ostiary

BAD = """\
package gateway.policies.bad

deny contains {"id": "bad.call", "msg": "asks the network"} if {
	http.send({"method": "get", "url": "http://192.0.2.1"}).status_code == 200
}
"""
FAILING = """\
package gateway.tests.bad

test_never if 1 == 2
"""


def ask(*words: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(ostiary, words)


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """The policies ``ostiary init`` writes."""
    assert ask("init", str(tmp_path / "home")).exit_code == 0
    return tmp_path / "home" / "policies"


def test_what_init_writes_is_sound_and_tested(policies: Path) -> None:
    """No finding, every test passes, and its rules are covered."""
    assert ask("policy", "check", str(policies)).exit_code == 0
    done = ask("policy", "test", str(policies), "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout.splitlines()[-1])
    assert [result["passed"] for result in document["results"]] == [True, True]
    assert all(one["percent"] == 100.0 for one in document["coverage"])


def test_a_rule_that_may_not_be_served_is_named_by_file_and_line(policies: Path) -> None:
    """Exit code 1, one line FILE:LINE: RULE: message, and the same as JSON."""
    (policies / "bad.rego").write_text(BAD, "utf-8")
    done = ask("policy", "check", str(policies))
    assert done.exit_code == 1
    assert any("bad.rego:4: GW002" in line for line in done.stdout.splitlines())
    found = json.loads(ask("policy", "check", str(policies), "--json").stdout.splitlines()[-1])
    assert not found["ok"]
    assert found["findings"][0]["line"] == 4


def test_a_failing_test_is_named_and_the_others_still_run(policies: Path) -> None:
    """Exit code 1; the count says how many pass."""
    (policies / "bad_test.rego").write_text(FAILING, "utf-8")
    done = ask("policy", "test", str(policies))
    assert done.exit_code == 1
    assert "FAIL  data.gateway.tests.bad.test_never" in done.stdout
    assert done.stdout.splitlines()[-1] == "2 of 3 tests pass"


def test_policies_without_tests_do_not_pass(tmp_path: Path) -> None:
    """Nothing tested is nothing shown."""
    (tmp_path / "quiet.rego").write_text("package gateway.policies.quiet\n", "utf-8")
    assert ask("policy", "test", str(tmp_path)).exit_code == 1


def test_a_folder_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    """Exit code 2."""
    assert ask("policy", "check", str(tmp_path / "none")).exit_code == 2
    assert ask("policy", "test", str(tmp_path / "none")).exit_code == 2
