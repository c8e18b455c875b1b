"""``ostiary client connect``: secrets as people write them among arguments, in addresses and in variables."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.client_desk import PASSWORD, TOKEN, Desk, furnished, servers

HOOK = "https://hooks.example.org/services/T024BE7LD/b8Xk2Qz91LmPw5RtYv7Nc3Ja"
RUN = HOOK.rpartition("/")[2]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty home, an empty project, and no gateway yet."""
    return furnished(tmp_path)


def connected(desk: Desk, entry: dict[str, Any], client: str = "cursor", **more: Any) -> dict[str, Any]:
    """The upstream that one server of Cursor's becomes."""
    where = {"cursor": "home/.cursor/mcp.json", "claude-desktop": "home/.config/Claude/claude_desktop_config.json"}
    desk.file(where[client], json.dumps({"mcpServers": {"a": entry}}))
    done = desk.connect(client, **more)
    assert done.exit_code == 0, done.output
    upstream = desk.settings["upstreams"]["a"]
    assert isinstance(upstream, dict)
    return upstream


def started(desk: Desk, upstream: dict[str, Any], env: dict[str, str]) -> list[str]:
    """The words that the server is started with, where a variable is ``env``'s or in a file."""
    out = desk.project / "words"
    given = {name: one for name, one in upstream.get("env", {}).items() if isinstance(one, str)}
    files = {
        name: Path(one["file"]).read_text("utf-8") if "file" in one else env[one["env"]]
        for name, one in upstream.get("env", {}).items()
        if isinstance(one, dict)
    }
    words = {**given, **files, "OUT": str(out)}
    assert os.spawnve(os.P_WAIT, upstream["command"][0], upstream["command"], words) == 0
    return out.read_text("utf-8").split("\n")[:-1]


@pytest.mark.parametrize(
    ("words", "secret"),
    [
        (["--key", TOKEN], TOKEN),
        (["--config", json.dumps({"exaApiKey": TOKEN, "deep": {"n": 1}})], TOKEN),
        (["--config", f'"{{\\"exaApiKey\\":\\"{TOKEN}\\"}}"'], TOKEN),
        ([f"--header=Authorization: Bearer {TOKEN}"], TOKEN),
        ([f"--env=BRAVE_API_KEY={TOKEN}"], TOKEN),
        ([f"--endpoint=https://t.example.org/mcp?key={TOKEN}&a=b"], TOKEN),
        ([HOOK], RUN),
        ([f"postgresql://u:{PASSWORD}@${{env:SHOP_HOST}}/erp"], PASSWORD),
        (["-c", f"API_KEY={TOKEN} db-server"], TOKEN),
        (["-c", f"A=1; API_KEY='{TOKEN}' db-server --port 80"], TOKEN),
        (["-c", f"db-server --api-key {TOKEN} -v"], TOKEN),
        (["--password", "correcthorse battery"], "correcthorse"),
        (["--connection-string", f"Server=db;User Id=sa;Password={PASSWORD};Encrypt=true"], PASSWORD),
        ([f"redis://db.example.org:6379,password={PASSWORD},ssl=True"], PASSWORD),
        (["--config", json.dumps({"password": f'{PASSWORD}"7fGh'})], '"7fGh'),
        (["--config", f"{{apiKey: '{TOKEN}'}}"], TOKEN),
    ],
)
def test_a_secret_among_the_arguments_is_in_a_file(desk: Desk, words: list[str], secret: str) -> None:
    """The server is started with the words it had, and the settings hold none of the secret."""
    script = desk.file("project/show", '#!/bin/sh\nprintf "%s\\n" "$@" > "$OUT"\n')
    script.chmod(0o755)
    env = {"SHOP_HOST": "db-7.example.org"}
    upstream = connected(desk, {"command": str(script), "args": words}, env=env)
    assert secret not in (desk.state / "gateway.toml").read_text("utf-8")
    assert started(desk, upstream, env) == [word.replace("${env:SHOP_HOST}", env["SHOP_HOST"]) for word in words]


@pytest.mark.parametrize(
    "address",
    [
        f"https://t.example.org/mcp?key={TOKEN}",
        f"https://t.example.org/mcp?code={TOKEN}&profile=mine",
        f"https://t.example.org/mcp#access_token={TOKEN}",
        f"https://t.example.org/api/{RUN}/mcp",
    ],
)
def test_a_secret_in_an_address_is_refused(desk: Desk, address: str) -> None:
    """Whatever its name is, and without one; neither the settings nor the screen get it."""
    desk.file("home/.cursor/mcp.json", json.dumps({"mcpServers": {"a": {"url": address}}}))
    refused = desk.connect("cursor")
    assert "its address holds a secret" in refused.output
    assert not desk.state.exists()
    assert not [secret for secret in (TOKEN, RUN) if secret in refused.output]


@pytest.mark.parametrize("variable", ["${MY_TOKEN}", "${MY_KEY}", "${MY_KEY:-none}"])
def test_a_secret_that_a_variable_puts_into_an_address_is_refused(desk: Desk, variable: str) -> None:
    """Or it would be filled in, and stand in the settings; a host's name may."""
    entry = {"type": "http", "url": f"https://${{MY_HOST}}/{variable}/mcp"}
    desk.file("project/.mcp.json", json.dumps({"mcpServers": {"a": entry}}))
    env = {"MY_HOST": "mcp-7.example.org", "MY_TOKEN": TOKEN, "MY_KEY": TOKEN}
    refused = desk.connect("claude-code", env=env)
    assert "holds a secret" in refused.output
    assert TOKEN not in refused.output
    assert not desk.state.exists()
    done = desk.connect("claude-code", env=env | {"MY_TOKEN": "eu", "MY_KEY": "eu"})
    assert (done.exit_code == 0) is (variable != "${MY_TOKEN}")


def test_what_the_editor_asks_for_is_asked_for_once_and_put_into_no_address(desk: Desk) -> None:
    """Two servers may need the same answer; which of them are secrets the editor alone knows."""
    header = {"type": "http", "url": "https://t.example.org/mcp", "headers": {"X-Api-Key": "${input:key}"}}
    known: dict[str, Any] = {"a": header, "b": header | {"url": "https://u.example.org/mcp"}}
    path = desk.file("project/.vscode/mcp.json", json.dumps({"servers": known}))
    words = ("connect", "vscode", "--project", str(desk.project))
    assert desk.run(*words, "--dry-run", env={"OSTIARY_INPUT_KEY": TOKEN}).exit_code == 0
    typed = desk.run(*words, typed=f"{TOKEN}\ny\n")
    assert typed.exit_code == 0, typed.output
    path.write_text(json.dumps({"servers": {"c": {"type": "http", "url": "https://t.example.org/${input:key}/mcp"}}}))
    assert "may be a secret" in desk.run(*words, typed=f"{TOKEN}\ny\n").output


@pytest.mark.parametrize(
    "address",
    [
        "https://t.example.org/mcp?project_ref=abcdefghijklmnopqrst&features=database%2Cdocs&read_only=true",
        "https://t.example.org/v1/0198c1de-7a40-7c1e-b2a3-0123456789ab/mcp?sort_key=created_at_date",
    ],
)
def test_an_address_without_a_secret_is_carried(desk: Desk, address: str) -> None:
    """Names of projects and of features, and ids."""
    assert connected(desk, {"url": address})["url"] == address


def test_an_address_that_is_said_to_be_of_http_is_carried(desk: Desk) -> None:
    """Whatever the last part of its path is."""
    assert connected(desk, {"type": "http", "url": "https://t.example.org/sse"})["url"].endswith("/sse")


def test_variables_that_name_a_password_or_hold_a_webhook_are_secrets(desk: Desk) -> None:
    """A word may be a password where the name says so; a webhook's last part is nothing but a secret."""
    env = {"MYSQL_PASS": "correcthorse", "SLACK_WEBHOOK": HOOK, "BASE_URL": "https://t.example.org/v2/", "PASSES": "7"}
    upstream = connected(desk, {"command": "uvx", "env": env})
    assert [name for name, one in upstream["env"].items() if isinstance(one, dict)] == ["MYSQL_PASS", "SLACK_WEBHOOK"]


@pytest.mark.parametrize("secret", ['pass"word-4711', "pass\\word-4711", "p\u00e4ssword-4711"])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_secret_that_json_writes_in_another_way_stays_nowhere(desk: Desk, secret: str, *, ascii_only: bool) -> None:
    """A server that is switched off may hold it, too."""
    entry = {"command": "uvx", "env": {"DB_PASSWORD": secret}}
    known = {"mcpServers": {"a": entry, "b": entry | {"disabled": True}}}
    desk.file("home/.cursor/mcp.json", json.dumps(known, ensure_ascii=ascii_only))
    refused = desk.connect("cursor")
    assert refused.exit_code == 2
    assert "stands there once more" in refused.output


def test_two_variables_have_two_files(desk: Desk) -> None:
    """Also where their names differ in a mark that no file's name has."""
    upstream = connected(desk, {"command": "uvx", "env": {"A.TOKEN": "tok-first-0001", "A_TOKEN": "tok-second-0001"}})
    held = {name: Path(one["file"]).read_text("utf-8") for name, one in upstream["env"].items()}
    assert held == {"A.TOKEN": "tok-first-0001", "A_TOKEN": "tok-second-0001"}


@pytest.mark.parametrize("client", ["cursor", "claude-desktop"])
def test_a_variable_that_the_program_reads_itself_is_left_to_it(desk: Desk, client: str) -> None:
    """As mcp-remote's makers tell people to write it; the secret is in a file all the same."""
    words = ["mcp-remote", "https://t.example.org/mcp", "--header", "Authorization:${AUTH_HEADER}"]
    upstream = connected(
        desk, {"command": "npx", "args": words, "env": {"AUTH_HEADER": f"Bearer {TOKEN}"}}, client=client
    )
    assert upstream["command"] == ["npx", *words]
    assert list(upstream["env"]["AUTH_HEADER"]) == ["file"]


@pytest.mark.parametrize("text", ["", "\n", "\ufeff\r\n", " \t\n"])
def test_an_empty_file_is_one_without_servers(desk: Desk, text: str) -> None:
    """Editors leave such files."""
    path = desk.file("home/.cursor/mcp.json", text)
    assert desk.connect("cursor").exit_code == 0
    assert list(servers(path)) == ["ostiary"]
    assert desk.run("undo", "cursor").exit_code == 0
    assert path.read_bytes() == text.encode()


@pytest.mark.parametrize(
    "words",
    [
        ["--low-pass", "200"],
        ["--byPass=true"],
        ["-c", "PASSWORD=$PW db-server"],
        ["-c", "TOKEN=$(cat /run/token) db-server"],
        ["--instructions", "Never show the password: it is not yours. Ask for --token if need be."],
        ["--config", json.dumps({"password": "", "token": None, "sortKey": "created_at"})],
    ],
)
def test_what_is_no_secret_stays_among_the_arguments(desk: Desk, words: list[str]) -> None:
    """Switches, numbers, what a shell fills in, and prose."""
    assert connected(desk, {"command": "uvx", "args": words})["command"] == ["uvx", *words]


@pytest.mark.parametrize("piece", ["a", "/a", "a://", "eyJ", "${x ", '"a" ', "a=$(", " --key ", '\\"a\\":\\"'])
def test_long_words_take_no_long_time(desk: Desk, piece: str) -> None:
    """Whatever they are made of."""
    desk.file("home/.cursor/mcp.json", json.dumps({"mcpServers": {"a": {"command": "x", "args": [piece * 20_000]}}}))
    since = time.process_time()
    desk.connect("cursor")
    assert time.process_time() - since < 5
