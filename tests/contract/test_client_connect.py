"""``ostiary client connect`` and ``undo`` on real files of every client, in homes that exist for one test."""

import json
import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.root import ostiary

TOKEN = "tok-9f8e7d6c5b4a"
PASSWORD = "pw-hunter2-4711"
CURSOR = """\
{
  // my servers
  "mcpServers": {
    "GitHub Tools": {
      "url": "https://tracker.example.org/mcp",
      "headers": { "Authorization": "Bearer tok-9f8e7d6c5b4a" },
    },
    // the database
    "db": {
      "command": "npx",
      "args": ["-y", "db-server", "postgresql://u:pw-hunter2-4711@db.example.org/erp"],
      "env": { "LOG_LEVEL": "debug", "API_TOKEN": "tok-second-0001" }
    }, /* both */
    "gateway": { "command": "uvx", "args": ["mcp-server-time"], "timeout": 5 }
  },
  "other": [1, 2]
}
"""


@dataclass(frozen=True)
class Desk:
    """A person's machine."""

    home: Path
    project: Path
    state: Path

    def run(self, *words: str, env: dict[str, str] | None = None, typed: str | None = None) -> Result:
        """Run ``ostiary client`` there."""
        place = {"HOME": str(self.home), "XDG_CONFIG_HOME": None, "CLAUDE_CONFIG_DIR": None, **(env or {})}
        state = [] if "--config" in words else ["--state", str(self.state)]
        return CliRunner().invoke(ostiary, ["client", *words, *state], env=place, input=typed)

    def connect(self, *words: str, **more: Any) -> Result:
        """Connect without being asked."""
        return self.run("connect", *words, "--project", str(self.project), "--yes", **more)

    def file(self, name: str, text: str | bytes) -> Path:
        """A file below the home or, beginning with ``project/``, of the project."""
        path = self.home.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    @property
    def settings(self) -> dict[str, Any]:
        """``gateway.toml``, parsed."""
        return tomllib.loads((self.state / "gateway.toml").read_text("utf-8"))

    def everything(self) -> dict[str, tuple[bytes, int]]:
        """All files of home and project, with their modes."""
        return {
            str(path): (path.read_bytes(), path.stat().st_mode)
            for root in (self.home, self.project)
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty home, an empty project, and no gateway yet."""
    for name in ("home", "project"):
        (tmp_path / name).mkdir()
    return Desk(tmp_path / "home", tmp_path / "project", tmp_path / "state")


def servers(path: Path, key: str = "mcpServers") -> Any:
    """The servers a client finds in ``path``; the file must be strict JSON by then, comments aside."""
    lines = [re.sub(r"(^|\s)//.*", "", line) for line in path.read_text("utf-8-sig").splitlines()]
    return json.loads("\n".join(lines).replace("/* both */", ""))[key]


class TestConnecting:
    """What becomes of servers, secrets and files."""

    def test_servers_become_upstreams_and_the_client_gets_the_gateway_alone(self, desk: Desk) -> None:
        """Commands, addresses and header fields are moved whole; names that do not fit are mapped and told."""
        path = desk.file("home/.cursor/mcp.json", CURSOR)
        done = desk.connect("cursor")
        assert done.exit_code == 0, done.output
        assert list(servers(path)) == ["ostiary"]
        upstreams = desk.settings["upstreams"]
        assert list(upstreams) == ["github-tools", "db", "gateway-2"]
        assert upstreams["github-tools"]["url"] == "https://tracker.example.org/mcp"
        assert upstreams["gateway-2"]["command"] == ["uvx", "mcp-server-time"]
        assert desk.settings["credentials"]["github-tools"]["prefix"] == "Bearer "
        assert "GitHub Tools -> upstream github-tools" in done.output
        assert "not carried over: timeout" in done.output

    def test_secrets_are_in_files_of_their_own_and_nowhere_else(self, desk: Desk) -> None:
        """Neither client, settings nor screen holds one; the files and copies are their owner's only."""
        path = desk.file("home/.cursor/mcp.json", CURSOR)
        done = desk.connect("cursor")
        shown = done.output + path.read_text("utf-8") + (desk.state / "gateway.toml").read_text("utf-8")
        assert not [secret for secret in (TOKEN, PASSWORD, "tok-second-0001") if secret in shown]
        secrets = {one.read_text("utf-8") for one in (desk.state / "secrets").iterdir()}
        assert secrets == {TOKEN, PASSWORD, "tok-second-0001"}
        private = [one for one in desk.state.rglob("*") if one.is_file() or one.is_dir()]
        assert private
        assert not [one for one in private if one.stat().st_mode & 0o077]

    def test_an_argument_that_is_a_secret_comes_from_a_variable(self, desk: Desk) -> None:
        """The server is started with the very words it had; the settings hold none of the secret."""
        out = desk.project / "words"
        script = desk.file("project/show", '#!/bin/sh\nprintf "%s\\n" "$@" > "$OUT"\n')
        script.chmod(0o755)
        words = ["--dsn=postgresql://u:pw-hunter2-4711@h/d", "--api-key", TOKEN, "two words", "", "it's", "$HOME"]
        entry = {"command": str(script), "args": words, "env": {"OUT": str(out)}}
        desk.file("home/.cursor/mcp.json", json.dumps({"mcpServers": {"show": entry}}))
        assert desk.connect("cursor").exit_code == 0
        upstream = desk.settings["upstreams"]["show"]
        env = {k: v if isinstance(v, str) else Path(v["file"]).read_text() for k, v in upstream["env"].items()}
        assert os.spawnve(os.P_WAIT, upstream["command"][0], upstream["command"], env) == 0
        assert out.read_text("utf-8").split("\n")[:-1] == words
        assert TOKEN not in str(upstream)
        assert PASSWORD not in str(upstream)

    def test_all_else_in_the_file_stays_as_it_is_written(self, desk: Desk) -> None:
        """Comments between servers, other members, tabs, line ends and a byte order mark are kept."""
        text = (
            '\ufeff{\r\n\t// mine\r\n\t"a": 1,\r\n\t"servers": {\r\n\t\t"t": {"command": "uvx"}, // t\r\n\t},\r\n}\r\n'
        )
        path = desk.file("project/.vscode/mcp.json", text)
        assert desk.connect("vscode").exit_code == 0
        now = path.read_bytes().decode()
        assert now.startswith(
            '\ufeff{\r\n\t// mine\r\n\t"a": 1,\r\n\t"servers": {\r\n\t\t"ostiary": {\r\n\t\t\t"type": "stdio"'
        )
        assert now.endswith("\r\n\t\t}, // t\r\n\t},\r\n}\r\n")
        assert "\n" not in now.replace("\r\n", "")

    def test_doing_it_twice_changes_nothing(self, desk: Desk) -> None:
        """The second run finds nothing to do; a server added since is moved alone, to the upstream it is."""
        path = desk.file("home/.cursor/mcp.json", CURSOR)
        desk.connect("cursor")
        before, settings = desk.everything(), (desk.state / "gateway.toml").read_bytes()
        again = desk.connect("cursor")
        assert "nothing to do" in again.output
        assert (desk.everything(), (desk.state / "gateway.toml").read_bytes()) == (before, settings)
        known = servers(path)
        known["db"] = json.loads(CURSOR.partition('"db": ')[2].partition(", /*")[0])
        known["fresh"] = {"command": "uvx", "args": ["fresh"]}
        path.write_text(json.dumps({"mcpServers": known}), "utf-8")
        assert desk.connect("cursor").exit_code == 0
        assert list(servers(path)) == ["ostiary"]
        assert list(desk.settings["upstreams"]) == ["github-tools", "db", "gateway-2", "fresh"]

    def test_every_place_of_claude_code_is_moved(self, desk: Desk) -> None:
        """The user's, the project's and the user's own for this project; the rest of its file stays."""
        own = {
            "numStartups": 7,
            "mcpServers": {"a": {"type": "stdio", "command": "uvx", "args": ["a"], "env": {}}},
            "projects": {
                str(desk.project): {"mcpServers": {"b": {"command": "./b"}}, "history": ["x"]},
                "/elsewhere": {"mcpServers": {"z": {"command": "z"}}},
            },
        }
        file = desk.file("home/.claude.json", json.dumps(own, indent=2))
        shared = desk.file(
            "project/.mcp.json", '{"mcpServers": {"c": {"type": "http", "url": "http://127.0.0.1:9/mcp"}}}'
        )
        done = desk.connect("claude-code")
        assert done.exit_code == 0, done.output
        now = json.loads(file.read_text("utf-8"))
        entry = now["mcpServers"]["ostiary"]
        assert entry["url"] == "http://127.0.0.1:8470/mcp"
        assert "client headers --state" in entry["headersHelper"]
        assert now["projects"][str(desk.project)] == {"mcpServers": {"ostiary": entry}, "history": ["x"]}
        assert now["projects"]["/elsewhere"] == own["projects"]["/elsewhere"]  # type: ignore[index]
        assert servers(shared) == {"ostiary": entry}
        assert desk.settings["upstreams"]["b"]["command"] == [str(desk.project / "b")]
        assert desk.settings["upstreams"]["b"]["cwd"] == str(desk.project)

    @pytest.mark.parametrize(
        ("client", "file"),
        [
            ("claude-code", "home/.claude.json"),
            ("claude-desktop", "home/.config/Claude/claude_desktop_config.json"),
            ("cursor", "home/.cursor/mcp.json"),
            ("vscode", "home/.config/Code/User/mcp.json"),
        ],
    )
    def test_a_client_without_servers_gets_the_gateway(self, desk: Desk, client: str, file: str) -> None:
        """A file that is missing is made, for its owner only, and ``undo`` takes it away."""
        assert desk.connect(client).exit_code == 0
        path = desk.home.parent / file
        assert list(servers(path, "servers" if client == "vscode" else "mcpServers")) == ["ostiary"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert desk.run("undo", client).exit_code == 0
        assert not path.exists()

    def test_what_the_editor_asks_for_is_asked_for(self, desk: Desk) -> None:
        """An input's value is typed, or taken from a variable; where nobody may be asked it is named."""
        entry = {"type": "http", "url": "https://t.example.org/mcp", "headers": {"X-Api-Key": "${input:the-key}"}}
        desk.file("project/.vscode/mcp.json", json.dumps({"inputs": [], "servers": {"t": entry}}))
        assert "OSTIARY_INPUT_THE_KEY" in desk.connect("vscode").output
        typed = desk.run("connect", "vscode", "--project", str(desk.project), typed=f"{TOKEN}\ny\n")
        assert typed.exit_code == 0, typed.output
        assert TOKEN not in typed.output
        assert (desk.state / "secrets" / "t.X-Api-Key").read_text("utf-8") == TOKEN

    def test_variables_of_the_environment_stay_there(self, desk: Desk) -> None:
        """A secret in a variable is referred to, a folder is filled in, a default is taken, an unset one is refused."""
        env = {"KEY": "${MY_TOKEN}", "PLACE": "${HOME}/data", "MODE": "${MODE_X:-fast}"}
        entry = {"command": "uvx", "args": ["${HOME}/x"], "env": env}
        path = desk.file("project/.mcp.json", json.dumps({"mcpServers": {"v": entry}}))
        refused = desk.connect("claude-code")
        assert refused.exit_code == 2
        assert "MY_TOKEN is not set" in refused.output
        done = desk.connect("claude-code", env={"MY_TOKEN": TOKEN})
        assert "the gateway's environment needs: MY_TOKEN" in done.output
        upstream = desk.settings["upstreams"]["v"]
        assert upstream["env"] == {"KEY": {"env": "MY_TOKEN"}, "PLACE": f"{desk.home}/data", "MODE": "fast"}
        assert upstream["command"] == ["uvx", f"{desk.home}/x"]
        assert list(servers(path)) == ["ostiary"]

    def test_the_settings_keep_every_byte_they_had(self, desk: Desk) -> None:
        """Upstreams are appended to a file with comments; names that are taken are given a number."""
        desk.state.mkdir(mode=0o700)
        old = '# mine\n[upstreams.db] # keep\nkind = "mcp"\ncommand = ["x"]'
        (desk.state / "gateway.toml").write_text(old, "utf-8")
        desk.file("home/.cursor/mcp.json", CURSOR)
        assert desk.connect("cursor").exit_code == 0
        assert (desk.state / "gateway.toml").read_text("utf-8").startswith(f"{old}\n\n# From cursor")
        assert list(desk.settings["upstreams"]) == ["db", "github-tools", "db-2", "gateway-2"]
        assert desk.run("undo", "cursor").exit_code == 0
        assert (desk.state / "gateway.toml").read_text("utf-8") == old

    def test_a_gateway_of_its_own_is_told_who_calls(self, desk: Desk, tmp_path: Path) -> None:
        """With a configuration file, person and agent must be named; the entry names them and no secret."""
        assert CliRunner().invoke(ostiary, ["init", str(tmp_path / "gw")]).exit_code == 0
        config = tmp_path / "gw" / "gateway.toml"
        path = desk.file("home/.cursor/mcp.json", CURSOR)
        assert desk.connect("cursor", "--config", str(config)).exit_code == 2
        done = desk.connect("cursor", "--config", str(config), "--user", "vera", "--agent", "cursor")
        assert done.exit_code == 0, done.output
        assert servers(path)["ostiary"]["args"][-4:] == ["--user", "vera", "--agent", "cursor"]
        assert "[policy.data.gateway.scope" in done.output

    def test_it_is_shown_and_asked_for_first(self, desk: Desk) -> None:
        """A dry run and a no change nothing at all."""
        desk.file("home/.cursor/mcp.json", CURSOR)
        before = desk.everything()
        for words, typed in ((["--dry-run"], None), ([], "n\n"), ([], "")):
            shown = desk.run("connect", "cursor", "--project", str(desk.project), *words, typed=typed)
            assert "github-tools" in shown.output
            assert desk.everything() == before
            assert not desk.state.exists()

    def test_any_file_of_that_form_can_be_named(self, desk: Desk) -> None:
        """A file is connected by its path, through a link that stays one, and undone by its path."""
        target = desk.file("project/real.json", '{"mcpServers": {"t": {"command": "uvx"}}}')
        link = desk.home / "agent.json"
        link.symlink_to(target)
        before = target.read_bytes()
        assert desk.connect(str(link)).exit_code == 0
        assert link.is_symlink()
        assert list(servers(target)) == ["ostiary"]
        assert desk.run("undo", str(target)).exit_code == 0
        assert target.read_bytes() == before


REFUSED = {
    "sse": ({"type": "sse", "url": "https://t.example.org/sse"}, "old SSE transport"),
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
