"""``ostiary client connect`` where it cannot be done: it is said, and nothing is half done."""

import json
import os
from pathlib import Path

import pytest

from tests.client_desk import CURSOR, PASSWORD, TOKEN, Desk, furnished, servers


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty home, an empty project, and no gateway yet."""
    return furnished(tmp_path)


REFUSED = {
    "sse": ({"type": "sse", "url": "https://t.example.org/sse"}, "old SSE transport"),
    "sse, it seems": ({"url": "https://t.example.org/sse"}, "old SSE transport"),
    "websocket": ({"type": "ws", "url": "https://t.example.org"}, "type 'ws'"),
    "two fields": ({"url": "https://t.example.org", "headers": {"A": TOKEN, "B": TOKEN}}, "2 header fields"),
    "login in the address": ({"url": f"https://u:{PASSWORD}@t.example.org"}, "holds a secret"),
    "key in the address": ({"url": f"https://t.example.org/mcp?api_key={TOKEN}"}, "holds a secret"),
    "no address": ({"url": "file:///etc/passwd"}, "no http or https URL"),
    "short secret": ({"command": "x", "env": {"API_TOKEN": "abc"}}, "cannot be kept out"),
    "unknown member": ({"command": "x", "envFile": ".env"}, "envFile"),
    "headers by command": ({"url": "https://t.example.org", "headersHelper": "x"}, "headersHelper"),
    "words in the command": ({"command": "npx -y x"}, "holds spaces"),
    "relative": ({"command": "./x"}, "relative path"),
    "framing": ({"url": "https://t.example.org", "headers": {"Host": TOKEN}}, "cannot be a credential's"),
    "no object": (7, "no object"),
    "nothing": ({}, "neither a command nor one address"),
    "zero": ({"command": "x", "args": ["a\0b"]}, "no list of texts"),
    "variable": ({"command": "x", "args": ["${workspaceMystery}"]}, "known to the client only"),
}


class TestRefusing:
    """What cannot be done is said, and nothing is half done."""

    @pytest.mark.parametrize("name", REFUSED)
    def test_a_server_that_would_not_be_the_same_is_refused(self, desk: Desk, name: str) -> None:
        """The reason names it; no file is touched, and no secret is printed."""
        entry, why = REFUSED[name]
        known = {"good": {"command": "uvx"}, "odd": entry}
        desk.file("home/.cursor/mcp.json", json.dumps({"mcpServers": known}))
        before = desk.everything()
        refused = desk.connect("cursor")
        assert refused.exit_code == 2
        assert why in refused.output
        assert "--leave NAME" in refused.output
        assert desk.everything() == before
        assert not desk.state.exists()
        assert TOKEN not in refused.output
        assert PASSWORD not in refused.output

    def test_a_server_may_be_left_where_it_is(self, desk: Desk) -> None:
        """With ``--leave``, and where it is switched off; both are told."""
        known = {"good": {"command": "uvx"}, "odd": {"type": "sse"}, "off": {"disabled": True, "type": "sse"}}
        path = desk.file("home/.cursor/mcp.json", json.dumps({"mcpServers": known}))
        done = desk.connect("cursor", "--leave", "odd")
        assert done.exit_code == 0
        assert sorted(servers(path)) == ["odd", "off", "ostiary"]
        assert done.output.count("past the gateway") == 2

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ('{"mcpServers": {', "line 1, column 17"),
            ('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}', "given twice"),
            ('{"mcpServers": []}', "mcpServers is no object"),
            ("[]", "it is no object"),
            (b'{"mcpServers": {"\xff": {}}}', "not UTF-8"),
            ('{"a": "\\ud800"}', "malformed"),
            ("[" * 100, "nested too deeply"),
            ("{} x", "follows the end"),
        ],
    )
    def test_a_malformed_file_is_named_with_its_place(self, desk: Desk, text: str | bytes, why: str) -> None:
        """Line and column, and nothing is changed."""
        desk.file("home/.cursor/mcp.json", text)
        before = desk.everything()
        refused = desk.connect("cursor")
        assert refused.exit_code == 2
        assert why in refused.output
        assert desk.everything() == before
        assert not desk.state.exists()

    def test_comments_are_an_error_where_the_client_takes_none(self, desk: Desk) -> None:
        """Claude Desktop reads strict JSON; what it cannot read is not mended silently."""
        desk.file("home/.config/Claude/claude_desktop_config.json", '{ // x\n"mcpServers": {}}')
        refused = desk.connect("claude-desktop")
        assert refused.exit_code == 2
        assert "takes no comments" in refused.output

    def test_a_secret_that_would_stay_in_a_comment_stops_it(self, desk: Desk) -> None:
        """The line is named, the secret is not."""
        text = CURSOR.replace("// the database", f"// the old key was {TOKEN}")
        desk.file("home/.cursor/mcp.json", text)
        before = desk.everything()
        refused = desk.connect("cursor")
        assert refused.exit_code == 2
        assert "stands there once more" in refused.output
        assert TOKEN not in refused.output
        assert desk.everything() == before

    def test_settings_that_cannot_be_added_to_stop_it(self, desk: Desk) -> None:
        """An inline table takes no additions; the client keeps its servers."""
        desk.state.mkdir(mode=0o700)
        (desk.state / "gateway.toml").write_text("upstreams = {}\n", "utf-8")
        desk.file("home/.cursor/mcp.json", CURSOR)
        before = desk.everything()
        refused = desk.connect("cursor")
        assert refused.exit_code == 2
        assert "cannot be added to" in refused.output
        assert desk.everything() == before

    def test_several_files_change_together_or_not_at_all(self, desk: Desk) -> None:
        """Where the second file cannot be written the first, the settings and the secrets are as before."""
        desk.file("home/.cursor/mcp.json", CURSOR)
        second = desk.file("project/.cursor/mcp.json", '{"mcpServers": {"t": {"command": "uvx"}}}')
        # A folder in the place of the fresh copy: true for root as well, whom no permission stops.
        (second.parent / ".mcp.json.ostiary-new").mkdir()
        before = desk.everything()
        refused = desk.connect("cursor")
        assert refused.exit_code == 1
        assert "nothing was changed" in refused.output
        assert desk.everything() == before
        assert not (desk.state / "gateway.toml").exists()
        assert not list((desk.state / "secrets").iterdir())
        assert "not connected" in desk.run("undo", "cursor").output

    def test_a_link_that_leads_nowhere_and_a_file_that_is_none(self, desk: Desk) -> None:
        """Both are named."""
        (desk.home / ".cursor").mkdir()
        (desk.home / ".cursor" / "mcp.json").symlink_to("gone.json")
        assert "leads nowhere" in desk.connect("cursor").output
        (desk.home / ".cursor" / "mcp.json").unlink()
        os.mkfifo(desk.home / ".cursor" / "mcp.json")
        assert "no regular file" in desk.connect("cursor").output
        assert "no file, and no client" in desk.connect("emacs").output

    def test_a_file_that_keeps_its_servers_elsewhere_is_refused(self, desk: Desk) -> None:
        """Or they would stay in force, secrets and all, beside a gateway that nobody reads of."""
        text = json.dumps({"mcp": {"servers": {"a": {"command": "uvx", "env": {"API_TOKEN": TOKEN}}}}})
        path = desk.file("home/.config/Code/User/settings.json", text)
        refused = desk.connect(str(path))
        assert refused.exit_code == 2
        assert "neither mcpServers nor servers" in refused.output
        assert path.read_text("utf-8") == text

    def test_a_folder_that_is_another_one_in_each_project_is_refused(self, desk: Desk) -> None:
        """In the person's file; in a project's own it is that project's."""
        text = json.dumps({"mcpServers": {"files": {"command": "uvx", "args": ["files", "${workspaceFolder}"]}}})
        path = desk.file("home/.cursor/mcp.json", text)
        assert "another one in each project" in desk.connect("cursor").output
        path.unlink()
        desk.file("project/.cursor/mcp.json", text)
        assert desk.connect("cursor").exit_code == 0
        assert desk.settings["upstreams"]["files"]["command"] == ["uvx", "files", str(desk.project)]
