"""``ostiary client connect`` on real files of every client: what becomes of servers, secrets and files."""

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.client import jsonc
from gateway.cli.root import ostiary
from tests.client_desk import CURSOR, PASSWORD, TOKEN, Desk, furnished, servers


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty home, an empty project, and no gateway yet."""
    return furnished(tmp_path)


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

    @pytest.mark.parametrize(
        "members",
        [
            '"z": {"command": "z"},\n"x": {"command": "x"}, // x\n"b": {"command": "b"}, "c": {"command": "c"}\n',
            '"z": {"command": "z"}, "x": {"command": "x"}, // x\n"b": {"command": "b"} /* b */, /* c */ "c": {} // c\n',
            '"z": {"command": "z"}, "c": {"command": "c"}, "x": {"command": "x"}, // x\n"b": {"command": "b"}',
        ],
    )
    def test_what_shares_a_line_with_a_server_that_goes_stays(self, desk: Desk, members: str) -> None:
        """It never comes to stand behind the comment of the line before."""
        path = desk.file("home/.cursor/mcp.json", f'{{"mcpServers": {{{members}}}}}')
        done = desk.connect("cursor", "--leave", "x", "--leave", "c")
        assert done.exit_code == 0, done.output
        found = jsonc.read(path.read_text("utf-8"), comments=True).root.value["mcpServers"]
        assert sorted(found) == ["c", "ostiary", "x"]

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

    def test_a_file_of_copilots_is_taken_where_it_chooses_no_tools(self, desk: Desk) -> None:
        """All tools must be asked for in so many words there; some of them are another matter."""
        entry = {"type": "local", "command": "uvx", "args": ["a"], "tools": ["*"]}
        file = desk.file("home/.copilot/mcp-config.json", json.dumps({"mcpServers": {"a": entry}}))
        assert desk.connect(str(file)).exit_code == 0
        assert desk.settings["upstreams"]["a"]["command"] == ["uvx", "a"]
        file.write_text(json.dumps({"mcpServers": {"b": entry | {"tools": ["read"]}}}), "utf-8")
        assert "what tools means cannot be carried over" in desk.connect(str(file)).output

    def test_a_server_that_claude_code_is_told_not_to_use_stays(self, desk: Desk) -> None:
        """Whoever said no to a server of a project's does not have it started by the gateway instead."""
        shared = {name: {"command": f"./{name}"} for name in ("good", "refused", "local", "off")}
        file = desk.file("project/.mcp.json", json.dumps({"mcpServers": shared}))
        known = {"disabledMcpjsonServers": ["refused"], "disabledMcpServers": ["off"]}
        desk.file("home/.claude.json", json.dumps({"projects": {str(desk.project): known}}))
        desk.file("project/.claude/settings.local.json", '{"disabledMcpjsonServers": ["local"]}')
        done = desk.connect("claude-code")
        assert done.exit_code == 0, done.output
        assert list(desk.settings["upstreams"]) == ["good"]
        assert sorted(servers(file)) == ["local", "off", "ostiary", "refused"]
        assert done.output.count("told not to use it") == 3

    def test_a_projects_server_that_is_refused_is_not_the_persons_of_that_name(self, desk: Desk) -> None:
        """That one is in use, and would stay past the gateway."""
        desk.file("project/.mcp.json", '{"mcpServers": {"a": {"command": "theirs"}}}')
        desk.file("project/.claude/settings.local.json", '{"disabledMcpjsonServers": ["a"]}')
        path = desk.file("home/.claude.json", '{"mcpServers": {"a": {"command": "mine"}}}')
        assert desk.connect("claude-code").exit_code == 0
        assert desk.settings["upstreams"]["a"]["command"] == ["mine"]
        assert list(servers(path)) == ["ostiary"]

    def test_a_file_that_is_found_twice_is_read_once(self, desk: Desk) -> None:
        """In the home, Cursor's file of the project is the person's own."""
        path = desk.file("home/.cursor/mcp.json", CURSOR)
        done = desk.run("connect", "cursor", "--project", str(desk.home), "--yes")
        assert done.exit_code == 0, done.output
        assert list(desk.settings["upstreams"]) == ["github-tools", "db", "gateway-2"]
        assert list(servers(path)) == ["ostiary"]

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
