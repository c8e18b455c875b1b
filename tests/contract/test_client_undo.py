"""``ostiary client undo``: files as they were, byte for byte, and never over what others wrote."""

import json
import multiprocessing
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.client import changing
from tests.client_desk import CURSOR, Desk, furnished, servers


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty home, an empty project, and no gateway yet."""
    return furnished(tmp_path)


class TestUndoing:
    """Taken back."""

    def test_everything_is_as_before_byte_for_byte(self, desk: Desk) -> None:
        """Files, modes and settings; no secret and no copy stays in the state folder."""
        path = desk.file("home/.cursor/mcp.json", CURSOR)
        path.chmod(0o640)
        desk.file("project/.cursor/mcp.json", '{"mcpServers":{"t":{"command":"uvx"}}}')
        before = desk.everything()
        desk.connect("cursor")
        assert desk.everything() != before
        assert desk.run("undo", "cursor").exit_code == 0
        assert desk.everything() == before
        assert not (desk.state / "gateway.toml").exists()
        assert not list((desk.state / "secrets").iterdir())
        assert [one.name for one in (desk.state / "clients").iterdir()] == [".lock"]

    def test_a_file_that_was_changed_since_is_left_alone(self, desk: Desk) -> None:
        """Undo refuses; forced, the servers are back and the other change is kept."""
        path = desk.file("home/.cursor/mcp.json", CURSOR)
        desk.connect("cursor")
        changed = path.read_text("utf-8").replace("[1, 2]", "[1, 2, 3]")
        path.write_text(changed, "utf-8")
        refused = desk.run("undo", "cursor")
        assert refused.exit_code == 1
        assert "was changed since" in refused.output
        assert path.read_text("utf-8") == changed
        assert desk.run("undo", "cursor", "--force").exit_code == 0
        assert "[1, 2, 3]" in path.read_text("utf-8")
        assert list(servers(path)) == ["GitHub Tools", "db", "gateway"]

    def test_servers_that_were_changed_since_are_overwritten_by_force_only(self, desk: Desk) -> None:
        """The file is as before then, and a copy of what it was is kept for its owner."""
        path = desk.file("home/.cursor/mcp.json", CURSOR)
        desk.connect("cursor")
        path.write_text('{"mcpServers": {}}', "utf-8")
        assert desk.run("undo", "cursor").exit_code == 1
        forced = desk.run("undo", "cursor", "--force", "--json")
        kept = json.loads(forced.output.splitlines()[-1])["kept"]
        assert path.read_text("utf-8") == CURSOR
        [copy] = Path(kept).iterdir()
        assert copy.read_text("utf-8") == '{"mcpServers": {}}'
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    def test_settings_that_grew_since_keep_what_grew(self, desk: Desk) -> None:
        """Tables after the appended ones stay; a line added to those stops the undo."""
        desk.file("home/.cursor/mcp.json", CURSOR)
        desk.connect("cursor")
        settings = desk.state / "gateway.toml"
        whole = settings.read_text("utf-8")
        settings.write_text(f'{whole}header = "X"\n', "utf-8")
        assert desk.run("undo", "cursor").exit_code == 1
        settings.write_text(f"{whole}\n[listen]\nport = 9\n", "utf-8")
        assert desk.run("undo", "cursor").exit_code == 0
        assert desk.settings == {"state": ".", "listen": {"port": 9}}

    def test_upstreams_that_were_changed_since_stay_with_their_secrets(self, desk: Desk) -> None:
        """Forced, the client has its servers back, and the gateway still starts."""
        path = desk.file("home/.cursor/mcp.json", CURSOR)
        desk.connect("cursor")
        settings = desk.state / "gateway.toml"
        settings.write_text(settings.read_text("utf-8").replace("first_use", "pinned", 1), "utf-8")
        secrets = {one.name for one in (desk.state / "secrets").iterdir()}
        assert "its secrets do" in desk.run("undo", "cursor").output
        forced = desk.run("undo", "cursor", "--force")
        assert forced.exit_code == 0
        assert "upstream gone" not in forced.output
        assert path.read_text("utf-8") == CURSOR
        assert {one.name for one in (desk.state / "secrets").iterdir()} == secrets
        assert "github-tools" in desk.settings["upstreams"]

    def test_an_upstream_that_two_clients_use_stays_until_both_are_back(self, desk: Desk) -> None:
        """The same server of two clients is one upstream; the first connection is undone last."""
        text = '{"mcpServers": {"t": {"command": "uvx", "env": {"API_TOKEN": "tok-9f8e7d6c5b4a"}}}}'
        desk.file("home/.cursor/mcp.json", text)
        desk.file("home/.config/Claude/claude_desktop_config.json", text)
        desk.connect("cursor")
        assert "there already" in desk.connect("claude-desktop").output
        assert list(desk.settings["upstreams"]) == ["t"]
        refused = desk.run("undo", "cursor")
        assert "`ostiary client undo claude-desktop` first" in refused.output
        assert desk.run("undo", "claude-desktop").exit_code == 0
        assert desk.run("undo", "cursor").exit_code == 0

    def test_a_connection_that_was_broken_off_is_taken_back(self, desk: Desk) -> None:
        """Killed after the settings and before the client's file: undo mends the one and leaves the other."""
        path = desk.file("home/.cursor/mcp.json", CURSOR)
        desk.connect("cursor")
        path.write_text(CURSOR, "utf-8")  # as if it had never come to this
        assert desk.run("undo", "cursor").exit_code == 0
        assert path.read_text("utf-8") == CURSOR
        assert not (desk.state / "gateway.toml").exists()

    def test_a_damaged_receipt_is_named(self, desk: Desk) -> None:
        """The copies' place is told."""
        desk.file("home/.cursor/mcp.json", CURSOR)
        desk.connect("cursor")
        (desk.state / "clients" / "0001-cursor" / "receipt.json").write_text("{", "utf-8")
        refused = desk.run("undo", "cursor")
        assert refused.exit_code == 1
        assert "is damaged" in refused.output

    @pytest.mark.parametrize("after", range(5))
    @pytest.mark.parametrize("again", [False, True])
    def test_nothing_stays_of_a_connection_that_was_killed(self, desk: Desk, after: int, *, again: bool) -> None:
        """After none, some or all of the files but the client's own, and also once it was done over again."""
        desk.file("home/.cursor/mcp.json", CURSOR)
        before = desk.everything()
        killed = multiprocessing.get_context("fork").Process(target=_killed, args=(desk, after))
        killed.start()
        killed.join()
        assert killed.exitcode == -signal.SIGKILL
        if again:
            assert desk.connect("cursor").exit_code == 0
        undone = desk.run("undo", "cursor")
        assert undone.output.count("upstream gone") == 3
        assert desk.everything() == before
        left = [one.name for one in desk.state.rglob("*") if one.is_file()]
        assert sorted(left) == [".lock", "issuer.pem"]

    def test_a_connection_of_another_project_is_not_taken_back_with_it(self, desk: Desk) -> None:
        """Its file may have been put away for a while, as git does."""
        text = '{"mcpServers": {"first": {"command": "uvx"}}}'
        path = desk.file("project/.mcp.json", text)
        desk.connect("claude-code")
        connected = path.read_text("utf-8")
        path.write_text(text, "utf-8")
        desk.file("other/.mcp.json", text.replace("first", "second").replace("uvx", "npx"))
        other = str(desk.home.parent / "other")
        assert desk.run("connect", "claude-code", "--project", other, "--yes").exit_code == 0
        undone = desk.run("undo", "claude-code")
        assert undone.exit_code == 0
        assert list(desk.settings["upstreams"]) == ["first"]
        path.write_text(connected, "utf-8")
        assert desk.run("undo", "claude-code").exit_code == 0
        assert path.read_text("utf-8") == text

    def test_what_is_overwritten_by_force_is_kept_before(self, desk: Desk) -> None:
        """A process that is killed right after it has not lost what others wrote; nor does the next undo."""
        path = desk.file("home/.cursor/mcp.json", CURSOR)
        desk.connect("cursor")
        path.write_text('{"mcpServers": {}}', "utf-8")
        _until_killed(desk, "undo", "cursor", "--force", at=(changing, "sweep"))
        assert path.read_text("utf-8") == CURSOR
        assert desk.run("undo", "cursor").exit_code == 0
        [copy] = (desk.state / "clients" / "undone-0001-cursor").iterdir()
        assert copy.read_text("utf-8") == '{"mcpServers": {}}'

    def test_a_receipt_that_was_removed_by_half_stops_nothing(self, desk: Desk) -> None:
        """Killed while its folder is emptied: other connections can be undone all the same."""
        desk.file("home/.cursor/mcp.json", CURSOR)
        desk.file("project/.mcp.json", '{"mcpServers": {"first": {"command": "uvx"}}}')
        desk.connect("cursor")
        desk.connect("claude-code")
        _until_killed(desk, "undo", "claude-code", at=(os, "rmdir"))
        undone = desk.run("undo", "cursor")
        assert undone.exit_code == 0, undone.output
        assert [one.name for one in (desk.state / "clients").iterdir()] == [".lock"]


def _until_killed(desk: Desk, *words: str, at: tuple[Any, str]) -> None:
    """Run it in a process that is killed where it would call ``at``."""

    def run() -> None:
        setattr(*at, lambda *_args, **_named: os.kill(os.getpid(), signal.SIGKILL))
        desk.run(*words)

    killed = multiprocessing.get_context("fork").Process(target=run)
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL


def _killed(desk: Desk, after: int) -> None:
    """Connect, in a process that is killed once so many of its files are in their places."""
    put, real = list[Path](), Path.replace

    def replace(fresh: Path, path: Path) -> Path:
        if len(put) == after:
            os.kill(os.getpid(), signal.SIGKILL)
        put.append(path)
        return real(fresh, path)

    Path.replace = replace  # type: ignore[assignment, method-assign]
    desk.connect("cursor")
