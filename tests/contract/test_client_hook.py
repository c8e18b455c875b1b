"""``ostiary client hook``: what becomes of the agent's file and the settings, and that all of it can be taken back."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.client_desk import CURSOR, Desk, furnished

CLAUDE = """\
{
  "permissions": {"allow": ["Bash(npm test)"]},
  "hooks": {
    "PreToolUse": [
      {"matcher": "Bash", "hooks": [{"type": "command", "command": "./guard.sh"}]}
    ],
    "Stop": [{"hooks": [{"type": "command", "command": "./bell.sh"}]}]
  },
  "model": "opus"
}
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty home, an empty project, and no gateway yet."""
    return furnished(tmp_path)


def installed(desk: Desk, agent: str, *words: str) -> Result:
    """Install the hook without being asked."""
    return desk.run("hook", agent, *words, "--yes")


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text("utf-8"))


def words_of(command: str) -> list[str]:
    """The words of a hook's command; whatever keeps it from an answer must end it with 2."""
    assert command.endswith(" || exit 2")
    return shlex.split(command.removesuffix(" || exit 2"))


def test_claude_code_gets_one_more_hook_and_keeps_its_own(desk: Desk) -> None:
    """For every tool, in the person's settings; all else in the file is as it was; the gateway knows the agent."""
    path = desk.file("home/.claude/settings.json", CLAUDE)
    done = installed(desk, "claude-code")
    assert done.exit_code == 0, done.output
    before, after = json.loads(CLAUDE), read(path)
    own, ours = after["hooks"]["PreToolUse"]
    assert own == before["hooks"]["PreToolUse"][0]
    assert (ours["matcher"], ours["hooks"][0]["type"]) == ("*", "command")
    words = words_of(ours["hooks"][0]["command"])
    assert words[words.index("client") :][:5] == ["client", "pre-tool", "claude-code", "--server", "claude-code"]
    assert words[words.index("--state") + 1] == str(desk.state)
    after["hooks"]["PreToolUse"] = before["hooks"]["PreToolUse"]
    assert after == before
    assert desk.settings["upstreams"] == {"claude-code": {"kind": "hook", "client": "claude-code"}}


def test_cursor_gets_a_file_that_fails_closed(desk: Desk) -> None:
    """One hook for all tools, with the version that Cursor asks for."""
    done = installed(desk, "cursor", "--project", str(desk.project))
    assert done.exit_code == 0, done.output
    found = read(desk.project / ".cursor" / "hooks.json")
    assert found["version"] == 1
    [ours] = found["hooks"]["preToolUse"]
    assert ours["failClosed"] is True
    assert "pre-tool" in words_of(ours["command"])


def test_doing_it_twice_changes_nothing(desk: Desk) -> None:
    """And a hook of ours that says something else is replaced, not joined."""
    path = desk.file("home/.claude/settings.json", CLAUDE)
    installed(desk, "claude-code")
    before = desk.everything(), desk.settings
    again = installed(desk, "claude-code", "--json")
    assert json.loads(again.output.splitlines()[-1])["done"] is False
    assert (desk.everything(), desk.settings) == before
    path.write_text(path.read_text("utf-8").replace("--server claude-code", "--server other"), "utf-8")
    assert installed(desk, "claude-code").exit_code == 0
    assert len(read(path)["hooks"]["PreToolUse"]) == 2
    assert "--server claude-code" in path.read_text("utf-8")


@pytest.mark.parametrize(
    ("agent", "name", "text"),
    [
        ("claude-code", "home/.claude/settings.json", CLAUDE),
        ("claude-code", "home/.claude/settings.json", "{}"),
        ("claude-code", "home/.claude/settings.json", None),
        ("cursor", "home/.cursor/hooks.json", '\ufeff{\r\n\t"version": 1,\r\n\t"hooks": {}\r\n}\r\n'),
        ("cursor", "home/.cursor/hooks.json", None),
    ],
)
def test_undo_is_byte_for_byte(desk: Desk, agent: str, name: str, text: str | None) -> None:
    """The file and the settings; connecting the same client is another matter, and stays."""
    if text is not None:
        desk.file(name, text).chmod(0o640)
    desk.file("home/.cursor/mcp.json", CURSOR)
    assert desk.connect("cursor").exit_code == 0
    before, settings = desk.everything(), (desk.state / "gateway.toml").read_bytes()
    assert installed(desk, agent).exit_code == 0
    assert desk.everything() != before
    done = desk.run("undo", agent, "--hook")
    assert done.exit_code == 0, done.output
    assert desk.everything() == before
    assert (desk.state / "gateway.toml").read_bytes() == settings
    assert desk.run("undo", agent, "--hook").exit_code == 1


def test_what_was_changed_since_is_kept_by_force(desk: Desk) -> None:
    """Undo refuses; forced, the hook is gone and the other change stays."""
    path = desk.file("home/.claude/settings.json", CLAUDE)
    installed(desk, "claude-code")
    path.write_text(path.read_text("utf-8").replace("opus", "sonnet"), "utf-8")
    assert desk.run("undo", "claude-code", "--hook").exit_code == 1
    assert desk.run("undo", "claude-code", "--hook", "--force").exit_code == 0
    assert read(path) == json.loads(CLAUDE.replace("opus", "sonnet"))


def test_nothing_is_written_before_it_is_shown_and_said(desk: Desk) -> None:
    """A dry run, and a no."""
    desk.file("home/.claude/settings.json", CLAUDE)
    before = desk.everything()
    dry = desk.run("hook", "claude-code", "--dry-run")
    assert "asks before each tool" in dry.output
    assert desk.run("hook", "claude-code", typed="n\n").exit_code == 1
    assert desk.everything() == before
    assert not desk.state.exists()


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        '{"hooks": []}',
        '{"hooks": {"PreToolUse": {}}}',
        '{"hooks": {}, "hooks": {}}',
        '{"hooks": {} // mine\n}',
    ],
)
def test_a_file_that_is_none_is_refused_and_left_alone(desk: Desk, text: str) -> None:
    """With its name and what is wrong."""
    path = desk.file("home/.claude/settings.json", text)
    refused = installed(desk, "claude-code")
    assert refused.exit_code == 2, refused.output
    assert str(path) in refused.output
    assert path.read_text("utf-8") == text
    assert not desk.state.exists()


def test_another_upstream_of_that_name_is_not_taken_over(desk: Desk) -> None:
    """The agent gets the next name, and its hook asks under that."""
    desk.state.mkdir(mode=0o700)
    (desk.state / "gateway.toml").write_text(
        'state = "."\n[upstreams.claude-code]\nkind = "mcp"\nurl = "https://x.example.org/mcp"\n', "utf-8"
    )
    assert installed(desk, "claude-code").exit_code == 0
    assert desk.settings["upstreams"]["claude-code-2"]["kind"] == "hook"
    assert "--server claude-code-2" in (desk.home / ".claude" / "settings.json").read_text("utf-8")


def test_a_configured_gateway_wants_to_know_who_asks(desk: Desk) -> None:
    """Without a name nobody could be allowed anything; with one the person is told what policy needs."""
    config = desk.file("gateway.toml", f'state = "{desk.state}"\n')
    refused = desk.run("hook", "claude-code", "--config", str(config), "--yes")
    assert refused.exit_code == 2
    who = ("--user", "vera", "--agent-name", "coder")
    done = desk.run("hook", "claude-code", "--config", str(config), "--yes", *who)
    assert done.exit_code == 0, done.output
    assert 'allow = ["claude-code.hooks/Read"]' in done.output
    hook = read(desk.home / ".claude" / "settings.json")["hooks"]["PreToolUse"][0]["hooks"][0]["command"]
    assert words_of(hook)[-4:] == ["--user", "vera", "--agent", "coder"]


def test_a_folder_of_its_own_is_found(desk: Desk) -> None:
    """Where Claude Code is told to keep its settings elsewhere."""
    place = desk.home / "elsewhere"
    done = desk.run("hook", "claude-code", "--yes", env={"CLAUDE_CONFIG_DIR": str(place)})
    assert done.exit_code == 0, done.output
    assert "PreToolUse" in read(place / "settings.json")["hooks"]


def test_a_switch_that_silences_all_hooks_is_told(desk: Desk) -> None:
    """A hook beside it would never be run."""
    path = desk.file("home/.claude/settings.json", '{"disableAllHooks": true}')
    refused = installed(desk, "claude-code")
    assert refused.exit_code == 2
    assert "disableAllHooks" in refused.output
    assert read(path) == {"disableAllHooks": True}


def test_a_switch_in_a_wider_file_silences_a_projects_hook(desk: Desk) -> None:
    """Unless a narrower one, which counts, turns them on again."""
    desk.file("home/.claude/settings.json", '{"disableAllHooks": true}')
    words = ("claude-code", "--project", str(desk.project))
    refused = installed(desk, *words)
    assert refused.exit_code == 2
    assert "home/.claude/settings.json: disableAllHooks" in refused.output
    desk.file("project/.claude/settings.json", '{"disableAllHooks": false}')
    assert installed(desk, *words).exit_code == 0
