"""Keys of the log and of the issuer replaced at two real gateways on one PostgreSQL, handed over by a real OpenBao."""

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.servers.erp import Erp, erp
from gateway.core.vault_plan import Needs
from gateway.core.vault_policy import Duties
from tests.fakes.leases import READ, WRITE
from tests.gateways import NO_TLS, Gateway, ostiary, serving, until
from tests.rotating import AGENT, SETTINGS, calling, requests
from tests.stores import log_database

NEEDS = Needs((READ, WRITE), Duties(shelf="keys/ostiary/log"), role_id="ostiary-gateway", period_s=30)
_SETTINGS = f"""{SETTINGS}
[audit.postgres]
url = "@URL@"
password = {{ file = "password" }}
[rotation]
shared_keys = "keys/ostiary/log"
"""
PRIVATE = "PRIVATE KEY"


@pytest.fixture(scope="module")
def servers() -> Iterator[Erp]:
    """Both servers."""
    with erp(30, requests(NEEDS)) as both:
        yield both


@dataclass(frozen=True)
class Pair:
    """Two gateways' folders on one database."""

    folder: Path
    servers: Erp
    url: str
    password: str

    def home(self, name: str) -> Path:
        """The folder of a gateway; it begins with the keys of the first."""
        place = self.folder / name
        if not place.exists():
            place.mkdir()
            text = _SETTINGS.replace("@URL@", self.url) + self.servers.gateway_toml()
            (place / "gateway.toml").write_text(text, "utf-8")
            (place / "password").write_text(self.password, "utf-8")
            if name != "a":
                (place / "state").mkdir(0o700)
                shutil.copytree(self.folder / "a" / "state" / "keys", place / "state" / "keys")
        return place

    @contextlib.contextmanager
    def serving(self, name: str) -> Iterator[Gateway]:
        """That gateway, running."""
        with serving(self.home(name), **self.servers.environment) as gateway:
            yield gateway

    def keys(self, name: str) -> dict[str, bytes]:
        """The private halves that a gateway has."""
        found = (self.folder / name / "state" / "keys").glob("*.pem")
        return {path.name: path.read_bytes() for path in found if PRIVATE in path.read_text("ascii")}

    def verify(self) -> None:
        """The log is sound, by the first key and all that followed it."""
        done = ostiary("audit", "verify", "--state", str(self.folder / "b" / "state"), "--payloads", "--json")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, said["findings"]) == (0, []), done.stdout + done.stderr


@pytest.fixture
def pair(tmp_path: Path, servers: Erp) -> Pair:
    """A database for one log."""
    target = log_database(servers.postgres, f"share_{tmp_path.name}"[:60].lower())
    url = f"postgresql:///{target.database}?host={target.host}&user={target.user}"
    return Pair(tmp_path, servers, url, str(target.password))


def works(gateway: Gateway, token: str) -> None:
    """A call with that token is made."""
    answer = gateway.call(token, "erp.find_order", {"number": "PO-1001"})
    assert answer.status_code == 200, answer.text


def rotate(gateway: Gateway, kind: str) -> None:
    """Replace a key."""
    answer = gateway.http.post(f"/v1/rotations/{kind}", json={})
    assert (answer.status_code, [key["kind"] for key in answer.json()["keys"]]) == (200, [kind]), answer.text


def retire(gateway: Gateway) -> None:
    """Let the older key of the log sign no more, where there are two."""
    assert gateway.http.post("/v1/audit/keys/retire", json={}).status_code in {200, 409}


def shares(gateway: Gateway, action: str) -> list[dict[str, Any]]:
    """Bodies of what the log says of keys that are handed over."""
    found = [record["body"] for record in gateway.records(type="rotation.shared")]
    return [body for body in found if body["action"] == action]


def test_no_call_is_lost_while_both_gateways_get_new_keys(pair: Pair) -> None:
    """Two rotations of each kind, asked of either in turn, under constant calls at both; then while one is down."""
    with pair.serving("a") as one, pair.serving("b") as other:
        tokens = [one.token(agent=AGENT)]
        with calling(one, tokens[0], 1) as first, calling(other, tokens[0], 1) as second:
            for asked in (one, other):
                for kind in ("log_key", "issuer_key"):
                    rotate(asked, kind)
                    for caller in (first, second):
                        caller.go_on()
                retire(asked)
                tokens += [gateway.token(agent=AGENT) for gateway in (one, other)]
                for gateway in (one, other):
                    for token in tokens:
                        works(gateway, token)
            until(lambda: len(shares(one, "cleared")) == 4)
            lost = [seen for caller in (first, second) for seen in caller.seen if seen[0] != 200]
            assert lost == []
        until(lambda: pair.keys("a") == pair.keys("b"))
        assert sorted(len(pair.keys(name)) for name in "ab") == [2, 2]
        assert [body["kind"] for body in shares(one, "agreed")] == ["log_key", "issuer_key"] * 2
        assert one.records(type="rotation.failed") == []
        assert held(pair, [body["public"] for body in shares(one, "offered")]) == []
        told(pair, (one, other))
        other.process.terminate()
        other.process.wait()
        come_back(pair, one, tokens)
    pair.verify()


def come_back(pair: Pair, one: Gateway, tokens: list[str]) -> None:
    """One that was down has the keys that came meanwhile; without the vault's copy it says what to copy."""
    rotate(one, "issuer_key")
    left_behind(pair)
    for kind in ("log_key", "issuer_key"):
        tokens.append(one.token(agent=AGENT))
        rotate(one, kind)
    tokens.append(one.token(agent=AGENT))
    retire(one)
    copied = shutil.copytree(pair.home("b"), pair.folder / "c")
    with pair.serving("b") as other:
        for token in tokens:
            works(other, token)
        works(one, other.token(agent=AGENT))
        until(lambda: settled(one))
        assert pair.keys("a") == pair.keys("b")
    refused = ostiary("serve", "--config", str(copied / "gateway.toml"), **pair.servers.environment)
    assert refused.returncode != 0
    assert "copy log-" in refused.stderr
    assert "Traceback" not in refused.stderr


def left_behind(pair: Pair) -> None:
    """Without ``shared_keys`` it notices all the same that the issuer's key was replaced, and says both ways out."""
    copied = shutil.copytree(pair.home("b"), pair.folder / "unshared") / "gateway.toml"
    copied.write_text(copied.read_text("utf-8").replace('shared_keys = "keys/ostiary/log"', ""), "utf-8")
    refused = ostiary("serve", "--config", str(copied), **pair.servers.environment)
    assert refused.returncode != 0
    assert "set [rotation] shared_keys" in refused.stderr
    assert "copy issuer.pem and issuer-old" in refused.stderr
    assert "Traceback" not in refused.stderr


def held(pair: Pair, publics: list[str]) -> list[str]:
    """Which of these keys the vault has a copy of."""
    role = {"role_id": "ostiary-gateway", "secret_id": pair.servers.entry.secret_id}
    transport = httpx.HTTPTransport(uds=str(pair.servers.openbao.socket), verify=NO_TLS)
    with httpx.Client(transport=transport, base_url="http://localhost/v1/") as http:
        headers = {"X-Vault-Token": http.post("auth/approle/login", json=role).json()["auth"]["client_token"]}
        at = "keys/data/ostiary/log"
        return [public for public in publics if http.get(f"{at}/{public}", headers=headers).status_code != 404]


def told(pair: Pair, gateways: tuple[Gateway, ...]) -> None:
    """No private half stands in the log, in a gateway's words or its metrics."""
    bodies = [text for name in "ab" for text in pair.keys(name).values()]
    lines = [max(text.decode().splitlines(), key=len) for text in bodies]
    for gateway in gateways:
        said = json.dumps(gateway.records()) + gateway.http.get("/metrics").text + gateway.words()
        assert [line for line in lines if line in said] == []


def test_either_may_be_killed_in_the_middle(pair: Pair) -> None:
    """The one that replaces or the one that takes, early or late: the other loses no call, both go on with one set."""
    with pair.serving("a") as one, contextlib.ExitStack() as stack:
        other, token = stack.enter_context(pair.serving("b")), one.token(agent=AGENT)
        with calling(one, token, 1) as caller:
            # At once, while the other one takes it, and about when it comes into force.
            for place, (kind, delay_s) in enumerate((("log_key", 0.01), ("issuer_key", 0.3), ("log_key", 1.0))):
                asked = (other, one)[place % 2]
                killer = threading.Timer(delay_s, other.process.kill)
                killer.start()
                with contextlib.suppress(httpx.HTTPError):  # it may be killed before it can answer
                    asked.http.post(f"/v1/rotations/{kind}", json={})
                killer.join()
                other.process.wait()
                other = stack.enter_context(pair.serving("b"))
                until(lambda: settled(one))
                works(other, token)
                works(other, one.token(agent=AGENT))
                works(one, other.token(agent=AGENT))
                until(lambda: pair.keys("a") == pair.keys("b"))
                retire(one)
                caller.go_on()
            assert [seen for seen in caller.seen if seen[0] != 200] == []
    pair.verify()


def settled(gateway: Gateway) -> bool:
    """Whether every key that was offered was agreed upon or withdrawn, and the vault has none any more."""
    return len(shares(gateway, "offered")) == len(shares(gateway, "cleared"))
