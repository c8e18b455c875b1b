"""A gateway whose log key is rotated while agents call and a witness watches, and which is killed in between."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import Api, api_server
from tests.foreign.building import quorum, witness, witnessing
from tests.gateways import Gateway, ostiary, serving, until

__all__ = ["witness"]

CONFIG = """
state = "state"
catalogue = ["catalogue.toml"]

[listen]
port = 0

[policy]
deadline_ms = 1000

[log]
witness_every_s = 1
{witness}

[upstreams.api]
kind = "http"
origin = "{api}"
allow_networks = ["127.0.0.0/8"]

[policy.data.gateway.scope.groups.desk]
allow = ["api.*"]

[policy.data.gateway.scope.agents."*"]
allow = ["api.*"]
"""
CATALOGUE = """
[[tool]]
server = "api"
name = "echo"
effect = "read"
description = "Says what it is told."

[tool.input_schema]
type = "object"
required = ["id"]
additionalProperties = false
properties.id = { type = "string" }

[tool.http]
method = "POST"
path = "/tools/echo/{id}"
"""
WITNESS = '[[log.witness]]\nname = "one"\nurl = "{url}"\nvkey = "{vkey}"\n'


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """The HTTP API."""
    with api_server() as server:
        yield server


@contextmanager
def started(folder: Path, api: Api, watching: str = "") -> Iterator[Gateway]:
    """A gateway, asking a witness where one is given."""
    folder.mkdir(exist_ok=True)
    (folder / "gateway.toml").write_text(CONFIG.format(api=api.origin, witness=watching))
    (folder / "catalogue.toml").write_text(CATALOGUE)
    with serving(folder) as gateway:
        yield gateway


@contextmanager
def calling(gateway: Gateway) -> Iterator[list[int]]:
    """Calls go on meanwhile; their HTTP states."""
    token, done, states = gateway.token(agent="clerk"), threading.Event(), list[int]()

    def work() -> None:
        while not done.is_set():
            states.append(gateway.call(token, "api.echo", {"id": "1"}).status_code)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield states
    finally:
        done.set()
        for thread in threads:
            thread.join()


def verified(folder: Path, *words: str) -> dict[str, Any]:
    """What ``ostiary audit verify`` says of a log that is sound."""
    done = ostiary("audit", "verify", "--state", str(folder / "state"), "--json", *words)
    assert done.returncode == 0, done.stdout
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_a_rotation_among_calls_survives_a_kill(tmp_path: Path, api: Api) -> None:
    """No call is lost; after kill -9 the overlap goes on, and ends by a command; each key verifies the whole log."""
    with started(tmp_path, api) as gateway:
        with calling(gateway) as states:
            until(lambda: len(states) > 5)
            first, second = gateway.ask("audit", "keys", "rotate")["keys"]
            until(lambda: len(states) > 20)
        assert set(states) == {200}
        gateway.process.kill()
        gateway.process.wait()
    names = {path.name for path in (tmp_path / "state" / "keys").glob("log*.pem")}
    assert names == {"log.pem", f"log-{second['key_id']}.pem"}
    with started(tmp_path, api) as gateway:
        with calling(gateway) as states:
            until(lambda: len(states) > 5)
            retired, _ = gateway.ask("audit", "keys", "retire")["keys"]
            until(lambda: len(states) > 20)
        assert set(states) == {200}
        assert (retired["key_id"], retired["state"]) == (first["key_id"], "retired")
        policy = tmp_path / "tlog-policy"
        gateway.ask("audit", "policy", "-o", str(policy))
        assert second["vkey"] in policy.read_text()
        shown = ostiary("audit", "keys", "list", OSTIARY_STATE=str(gateway.state))
        assert [line.split()[1] for line in shown.stdout.splitlines()[1:]] == ["retired", "signing"]
    for words in ((), ("--policy", str(policy))):
        said = verified(tmp_path, *words)
        assert [signer["retired"] for signer in said["signers"]] == [True, False]
        assert said["signed_us"] > first["since_us"]
    text = ostiary("audit", "verify", "--state", str(tmp_path / "state")).stdout
    assert f"+{first['key_id']}: trees of 0 to" in text
    assert "(the newest record)" in text


def test_a_witness_of_others_watches(tmp_path: Path, api: Api, witness: Path) -> None:
    """What is served has its cosignature, also for foreign code; it is down, and calls go on, and it is back."""
    with started(tmp_path, api) as gateway:
        log = gateway.ask("audit", "keys", "list")["keys"][0]["vkey"]
    with witnessing(witness, "one.example/w", log) as one:
        section = WITNESS.format(url=one.url, vkey=one.vkey)
        with started(tmp_path, api, section) as gateway:
            assert until(lambda: said(gateway)["states"]["one"] != "waiting")
            assert said(gateway)["states"] == {"one": "ok"}
            note = gateway.http.get("/v1/audit/log/witnessed").text
            policy = gateway.http.get("/v1/audit/policy").text
            assert quorum(witness, policy, note, tmp_path)
            (tmp_path / "policy").write_text(policy)
            assert gateway.call(gateway.token(agent="clerk"), "api.echo", {"id": "1"}).status_code == 200
    with started(tmp_path, api, section) as gateway:
        # Where all was cosigned before the stop, the witness is asked only once there is something new.
        assert gateway.call(gateway.token(agent="clerk"), "api.echo", {"id": "1"}).status_code == 200
        until(lambda: said(gateway)["states"]["one"] == "unreachable")
        assert gateway.call(gateway.token(agent="clerk"), "api.echo", {"id": "1"}).status_code == 200
        assert said(gateway)["unwitnessed_since_us"] is not None
        assert gateway.http.get("/readyz").json()["status"] == "ready"
        assert "ostiary_log_unwitnessed_since_seconds 1." in gateway.http.get("/metrics").text
    found = verified(tmp_path, "--policy", str(tmp_path / "policy"))
    assert 0 < found["witnessed"] < found["size"]


def said(gateway: Gateway) -> dict[str, Any]:
    """What readiness says of the witnesses."""
    page: dict[str, Any] = gateway.http.get("/readyz").json()["witnesses"]
    return page
