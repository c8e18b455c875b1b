"""The command line without a gateway: help, configuration, tokens, and failures that carry their fix."""

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from pathlib import Path

import click
import jsonschema_rs
import pytest
from click.testing import CliRunner, Result

from gateway.adapters.clock import SystemClock
from gateway.adapters.identity import LocalIdentity, Trust, load_key
from gateway.cli import home, screen
from gateway.cli.addresses import require_free
from gateway.cli.root import COMMANDS, ostiary
from gateway.settings import GatewaySettings
from gateway.settings.catalogue import CatalogueFile
from gateway.settings.file import load

HEAVY = ("uvicorn", "starlette", "httpx", "pydantic", "cryptography", "regorus", "rich", "anyio", "asyncio", "sqlite3")
TRUST = Trust("urn:ostiary:local", frozenset({"ostiary"}))


def ask(*words: str, env: dict[str, str] | None = None) -> Result:
    """Run a command in this process."""
    quiet: dict[str, str | None] = {"OSTIARY_URL": None, "OSTIARY_TOKEN": None, "OSTIARY_STATE": None}
    return CliRunner().invoke(ostiary, words, env={**quiet, **(env or {})})


def last(result: Result) -> dict[str, object]:
    """The JSON of the last line of stdout."""
    document: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return document


@pytest.fixture
def home_folder(tmp_path: Path) -> Path:
    """A folder after ``ostiary init``."""
    assert ask("init", str(tmp_path / "home")).exit_code == 0
    return tmp_path / "home"


class TestHelp:
    """The first thing anybody types."""

    def test_help_names_every_command_and_imports_no_server(self) -> None:
        """The list comes from the table; nothing of the server is imported for it (the time is printed, not tested)."""
        code = (
            "import sys\nfrom gateway.cli.root import ostiary\nostiary(['--help'], standalone_mode=False)\n"
            f"print('loaded', [name for name in {HEAVY!r} if name in sys.modules])"
        )
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        # A figure for people; on a busy machine it fails nobody.
        print(f"ostiary --help: {(time.perf_counter() - began) * 1000:.0f} ms")  # noqa: T201
        assert done.stdout.splitlines()[-1] == "loaded []"
        for name, (_, _, words) in COMMANDS.items():
            assert f"  {name}" in done.stdout
            assert words in done.stdout

    @pytest.mark.parametrize("name", COMMANDS)
    def test_the_table_says_what_the_command_says(self, name: str) -> None:
        """Each row's command loads, and its own short help is the row's text."""
        module, attribute, words = COMMANDS[name]
        command = getattr(import_module(f"gateway.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        assert command.name == name
        assert command.get_short_help_str(200) == words

    def test_an_unknown_command_is_a_usage_error(self) -> None:
        """Exit code 2, and nothing is imported by a name a user typed."""
        assert ask("os").exit_code == 2
        assert ask("os.path").exit_code == 2

    def test_a_closed_pipe_is_no_traceback(self) -> None:
        """Output into a reader that has gone ends quietly."""
        command = [sys.executable, "-m", "gateway", "schema", "gateway"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            words = process.stderr.read()
        assert b"Traceback" not in words
        assert b"Exception" not in words


class TestInit:
    """A configuration to begin with."""

    def test_what_init_writes_loads_and_is_private(self, home_folder: Path) -> None:
        """The configuration is valid as written; state and keys are their owner's alone."""
        settings = load(home_folder / "gateway.toml")
        assert settings.state == home_folder / "state"
        CatalogueFile.model_validate(tomllib.loads((home_folder / "catalogue.toml").read_text("utf-8")))
        json.loads((home_folder / "policies" / "data.json").read_text("utf-8"))
        assert stat.S_IMODE(settings.state.stat().st_mode) == 0o700
        for key in (settings.state / "keys").glob("*.pem"):
            assert stat.S_IMODE(key.stat().st_mode) == 0o600

    def test_commented_examples_are_valid_when_uncommented(self, home_folder: Path) -> None:
        """Every example in the two files is accepted once its comment signs are taken off."""
        whole = home_folder / "whole.toml"
        whole.write_text(_uncommented(home_folder / "gateway.toml"), "utf-8")
        assert set(load(whole).upstreams) == {"time", "wiki", "erp", "orders", "vendors", "code"}
        catalogue = tomllib.loads(_uncommented(home_folder / "catalogue.toml"))
        assert len(CatalogueFile.model_validate(catalogue).tool) == 3

    def test_init_overwrites_nothing(self, home_folder: Path) -> None:
        """A second init is refused with exit code 2 and changes no byte."""
        before = {path: path.read_bytes() for path in home_folder.rglob("*") if path.is_file()}
        again = ask("init", str(home_folder))
        assert again.exit_code == 2
        assert "nothing was written" in again.stderr
        assert {path: path.read_bytes() for path in home_folder.rglob("*") if path.is_file()} == before

    def test_init_into_a_foreign_place_is_one_clear_line(self, tmp_path: Path) -> None:
        """A folder that cannot be made is an error with its fix."""
        (tmp_path / "file").touch()
        done = ask("init", str(tmp_path / "file" / "home"))
        assert done.exit_code == 2
        assert "fix:" in done.stderr


def _uncommented(path: Path) -> str:
    # Prose begins with a capital; an example with a key or a table.
    lines = path.read_text("utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("#") or re.match(r"# (\[|[a-z_]+ = )", line)]
    return "\n".join(line.removeprefix("# ") for line in kept)


class TestToken:
    """Tokens from the key file; no gateway runs."""

    def test_a_token_is_good_for_its_gateway(self, home_folder: Path) -> None:
        """What ``token issue`` prints verifies under the state folder's key, as the person and agent named."""
        done = ask(
            *("token", "issue", "--user", "alice", "--agent", "ap-agent", "--scope", "tools,runs", "--scope", "audit"),
            *("--group", "finance", "--ttl", "60", "--state", str(home_folder / "state"), "--json"),
        )
        assert done.exit_code == 0
        key = load_key(home.issuer_key(home_folder / "state")).public_key()
        principal = LocalIdentity(SystemClock(), TRUST, [key]).verify(str(last(done)["token"]))
        assert (principal.user, principal.agent, list(principal.groups)) == ("alice", "ap-agent", ["finance"])
        assert principal.scopes == {"tools", "runs", "audit"}

    def test_the_plain_output_is_the_token_alone(self, home_folder: Path) -> None:
        """So that TOKEN=$(ostiary token issue ...) works; without --agent it is the person's own."""
        done = ask("token", "issue", "--user", "alice", "--state", str(home_folder / "state"))
        key = load_key(home.issuer_key(home_folder / "state")).public_key()
        assert LocalIdentity(SystemClock(), TRUST, [key]).verify(done.stdout.strip()).agent is None

    def test_issuer_and_audience_come_from_the_configuration(self, home_folder: Path) -> None:
        """The state folder's own configuration counts, by --config and by --state alike."""
        config = home_folder / "gateway.toml"
        text = config.read_text("utf-8").replace("urn:ostiary:local", "urn:acme")
        config.write_text(text.replace('audience = ["ostiary"]', 'audience = ["acme"]'), "utf-8")
        key = load_key(home.issuer_key(home_folder / "state")).public_key()
        identity = LocalIdentity(SystemClock(), Trust("urn:acme", frozenset({"acme"})), [key])
        for where in (["--config", str(config)], ["--state", str(home_folder / "state")]):
            token = ask("token", "issue", "--user", "alice", *where).stdout.strip()
            assert identity.verify(token).issuer == "urn:acme"

    @pytest.mark.parametrize(
        "words",
        [["--user", "a|b"], ["--user", "a", "--scope", "root"], ["--user", "a", "--ttl", "0"], ["--agent", "x"], []],
        ids=["name", "scope", "ttl", "no-user", "nothing"],
    )
    def test_a_wrong_wish_is_a_usage_error(self, home_folder: Path, words: list[str]) -> None:
        """Exit code 2, and no token is printed."""
        done = ask("token", "issue", "--state", str(home_folder / "state"), *words)
        assert done.exit_code == 2
        assert done.stdout == ""

    def test_a_key_others_can_read_issues_nothing(self, home_folder: Path) -> None:
        """The refusal names the command that mends it."""
        key = home.issuer_key(home_folder / "state")
        key.chmod(0o644)
        done = ask("token", "issue", "--user", "alice", "--state", str(home_folder / "state"))
        assert done.exit_code == 2
        assert f"chmod 600 {key}" in done.stderr


class TestHome:
    """The state folder."""

    def test_a_state_folder_has_one_gateway(self, tmp_path: Path) -> None:
        """A second holder is told the first one's process id; the lock ends with its holder."""
        home.prepare(tmp_path / "state")
        with (
            home.held(tmp_path / "state"),
            pytest.raises(screen.Misconfigured, match=str(os.getpid())),
            home.held(tmp_path / "state"),
        ):
            pass
        with home.held(tmp_path / "state"):
            pass

    def test_a_state_folder_others_can_enter_is_refused(self, tmp_path: Path) -> None:
        """Whoever can enter it can replace the log."""
        (tmp_path / "state").mkdir(mode=0o755)
        (tmp_path / "state").chmod(0o755)
        with pytest.raises(screen.Misconfigured, match="other users") as refusal:
            home.prepare(tmp_path / "state")
        assert refusal.value.fix is not None
        assert refusal.value.fix.startswith("chmod 700")

    def test_a_socket_path_too_long_is_said_before_it_fails(self, tmp_path: Path) -> None:
        """The system's limit is named, and what to do."""
        with pytest.raises(screen.Misconfigured, match="bytes long") as refusal:
            home.prepare(tmp_path / ("x" * 90))
        assert refusal.value.exit_code == 2
        assert not (tmp_path / ("x" * 90)).exists()

    def test_a_taken_port_is_said_with_its_fix(self) -> None:
        """Not by a traceback from deep inside."""
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            pytest.raises(screen.Misconfigured, match="is taken") as refusal,
        ):
            require_free("127.0.0.1", server.getsockname()[1])
        assert "port 0" in str(refusal.value.fix)


class TestUp:
    """``ostiary up`` before anything is started."""

    @pytest.mark.parametrize("upstream", ["time", "=x", "time=", "time= "])
    def test_an_upstream_that_is_none_is_a_usage_error(self, tmp_path: Path, upstream: str) -> None:
        """NAME=URL or NAME=COMMAND, nothing else; no state folder is made."""
        done = ask("up", "--state", str(tmp_path / "state"), "--upstream", upstream)
        assert done.exit_code == 2
        assert not (tmp_path / "state").exists()

    def test_one_name_means_one_upstream(self, tmp_path: Path) -> None:
        """The second upstream of a name would silently win."""
        done = ask("up", "--state", str(tmp_path / "state"), "--upstream", "a=x", "--upstream", "a=y")
        assert done.exit_code == 2

    def test_a_taken_port_is_exit_code_two(self, tmp_path: Path) -> None:
        """With one line and its fix, and for machines as JSON."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            done = ask("up", "--state", str(tmp_path / "state"), "--port", port, "--json")
        assert done.exit_code == 2
        assert "is taken" in done.stderr
        assert "is taken" in str(last(done)["error"])


class TestFailures:
    """What is wrong, and what to do."""

    @pytest.mark.parametrize(
        "words",
        [["tool", "list"], ["run", "show", "x"], ["explain", "x"], ["audit", "search"], ["audit", "run", "x"]],
        ids=" ".join,
    )
    def test_no_gateway_is_one_line_and_a_fix(self, tmp_path: Path, words: list[str]) -> None:
        """Exit code 1, the socket's path, and how to start one."""
        done = ask(*words, "--state", str(tmp_path))
        assert done.exit_code == 1
        assert "no gateway answers at" in done.stderr
        assert "ostiary up" in done.stderr

    def test_a_token_does_not_leave_the_machine_in_clear(self) -> None:
        """Http beyond loopback is refused before anything is sent."""
        done = ask("tool", "list", "--url", "http://192.0.2.1:8470", "--token", "secret-token")
        assert done.exit_code == 2
        assert "secret-token" not in done.output

    @pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8470", "http://", "unix:/x"])
    def test_a_url_that_is_none_is_refused(self, url: str) -> None:
        """Only http and https with a host."""
        assert ask("tool", "list", "--url", url, "--token", "t").exit_code == 2

    def test_a_tool_is_never_called_without_a_name_to_call_it_in(self, tmp_path: Path) -> None:
        """The admin socket's trust does not reach tools."""
        done = ask("tool", "call", "a.b", "--state", str(tmp_path))
        assert done.exit_code == 2
        assert "OSTIARY_TOKEN" in done.stderr

    @pytest.mark.parametrize(
        "words",
        [
            ["tool", "call", "a.b", "--arg", "novalue"],
            ["tool", "call", "a.b", "--arg", "a=1", "--arg", "a=2"],
            ["tool", "call", "a.b", "--arguments", "{"],
            ["tool", "call", "a.b", "--arguments", "{}", "--arg", "a=1"],
            ["run", "open", "--goal", "g", "--agent", "a", "--budget", "calls=many"],
            ["audit", "search", "--since", "yesterday"],
            ["audit", "search", "--limit", "100000"],
            ["audit", "search", "--since", "999999d9"],
            ["schema", "nothing"],
            ["check", "--config", "/nonexistent/gateway.toml"],
            ["serve", "--config", "/nonexistent/gateway.toml"],
            ["token", "issue", "--user", "a", "--config", "/nonexistent/gateway.toml"],
        ],
        ids=" ".join,
    )
    def test_wrong_usage_is_exit_code_two(self, tmp_path: Path, words: list[str]) -> None:
        """Before any gateway is asked."""
        assert ask(*words, env={"OSTIARY_STATE": str(tmp_path), "OSTIARY_TOKEN": "t"}).exit_code == 2

    def test_every_problem_of_a_configuration_is_named(self, tmp_path: Path) -> None:
        """Unknown keys and bad values come together, in words and as JSON."""
        config = tmp_path / "gateway.toml"
        config.write_text('state = "s"\ncolour = "red"\n[listen]\nport = 99999\n', "utf-8")
        done = ask("check", "--config", str(config), "--json")
        assert done.exit_code == 2
        for key in ("colour", "listen.port"):
            assert key in done.stderr
        assert len(last(done)["problems"]) == 2  # type: ignore[arg-type]

    def test_what_others_wrote_cannot_move_the_cursor(self) -> None:
        """Control, bidirectional and invisible characters are shown escaped, on one line."""
        evil = "ok\x1b[2J\r\n\u202egnp\u200b\u2066\x00\ud800"
        assert screen.shown(evil) == "ok\\x1b[2J\\r\\n\\u202egnp\\u200b\\u2066\\x00\\ud800"


class TestSchema:
    """JSON Schemas for editors."""

    @pytest.mark.parametrize("name", ["gateway", "catalogue"])
    def test_a_schema_is_a_schema_and_fits_what_init_writes(self, home_folder: Path, name: str) -> None:
        """It is valid JSON Schema and accepts the file ``init`` writes, but no unknown key."""
        schema = json.loads(ask("schema", name).stdout)
        validator = jsonschema_rs.validator_for(schema)
        document = tomllib.loads((home_folder / f"{name}.toml").read_text("utf-8"))
        assert validator.is_valid(document)
        assert not validator.is_valid({**document, "colour": "red"})
        assert GatewaySettings.model_config["extra"] == "forbid"


def test_doctor_reports_each_part_with_its_fix(tmp_path: Path) -> None:
    """A taken port and an open key are found; each failing line is followed by what to do."""
    home.prepare(tmp_path / "state")
    home.issuer_key(tmp_path / "state").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = ask("doctor", "--state", str(tmp_path / "state"), "--port", port)
        machine = last(ask("doctor", "--state", str(tmp_path / "state"), "--port", port, "--json"))
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    failed = [at for at, line in enumerate(lines) if line.startswith("FAIL")]
    assert len(failed) == 2
    assert all("fix:" in lines[at + 1] for at in failed)
    assert machine["ok"] is False
    has_boxes = any(line.split()[1:3] == ["sandbox", "bwrap"] for line in lines)
    assert any("network = true" in line and "loopback" in line for line in lines) is has_boxes
