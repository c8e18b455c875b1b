"""What the redactor knows before anybody has said anything: what the settings name, and the gateway's own keys."""

import base64
from pathlib import Path

import pytest

from gateway.adapters.identity import (
    IssuerKeyRotation,
    IssuerTerms,
    LocalIdentity,
    LocalIssuer,
    Trust,
    create_key,
    load_key,
)
from gateway.adapters.ledger.books.payload_rotation import PayloadKeyRotation
from gateway.core.known import KnownValues
from gateway.core.redact import Redactor
from gateway.parts import acquainting
from gateway.settings import file as settings_file
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.ledgers import open_books

SETTINGS = """
state = "state"
[vault]
address = "https://vault.example.org"
role_id = "r"
secret_id = { file = "secret-id" }
[vault.break_glass]
role_id = "b"
secret_id = { env = "GLASS" }
[credentials.old]
env = "OLD"
[credentials.absent]
env = "ABSENT"
[upstreams.one]
kind = "mcp"
command = ["one"]
env = { KEY = { env = "CHILD" }, PLAIN = "not a secret at all" }
[connections.hub]
issuer = "https://hub.example.org"
client_id = "c"
client_secret = { env = "HUB" }
token_role = "hub"
"""
VALUES = {"GLASS": "the-glass-secret", "OLD": "the-old-secret", "CHILD": "the-child-secret", "HUB": "the-hub-secret"}


@pytest.mark.requirement("REDACT-1")
def test_every_secret_the_settings_name_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By variable and by file, at any depth; one that is missing keeps nobody from starting."""
    for name, value in VALUES.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "secret-id").write_text("the-first-secret-id\n")
    (tmp_path / "gateway.toml").write_text(SETTINGS)
    known = KnownValues()
    acquainting.configured(settings_file.load(tmp_path / "gateway.toml"), known)
    assert known.needles.values == {*VALUES.values(), "the-first-secret-id"}
    monkeypatch.setenv("GLASS", "short")
    acquainting.configured(settings_file.load(tmp_path / "gateway.toml"), again := KnownValues())
    assert "short" not in again.needles.values


@pytest.mark.requirement("REDACT-1")
async def test_the_gateways_own_keys_are_known(tmp_path: Path) -> None:
    """As PEM, in base64, in hexadecimal, as an upstream might read them; public keys are nobody's secret."""
    async with open_books(tmp_path):
        keys, known = tmp_path / "keys", KnownValues()
        acquainting.own_keys(keys, known)
        clean = Redactor(known).text
        pem = (keys / "log.pem").read_text()
        body = pem.splitlines()[1]
        assert body not in clean(pem)
        for secret in ("payload.kek", "pseudonym.key"):
            data = (keys / secret).read_bytes()
            for shown in (base64.b64encode(data).decode(), data.hex(), data.hex().upper()):
                assert shown not in clean(f"a {shown} b")
        assert clean((keys / "log.vkey").read_text()) == (keys / "log.vkey").read_text()
    acquainting.own_keys(tmp_path / "nothing", known)


async def test_a_key_that_comes_later_is_known_before_its_file_is_there(tmp_path: Path) -> None:
    """Another key of the log, of the issuer, of payloads: at once, not from the next start on."""
    clock, known, seen = StepClock(), KnownValues(), dict[str, bytes]()
    learn = acquainting.learner(known)

    def noted(content: bytes) -> None:
        assert content not in [path.read_bytes() for path in (tmp_path / "keys").glob("*") if path.is_file()]
        learn(content)
        seen[f"key-{len(seen)}"] = content

    create_key(tmp_path / "keys" / "issuer.pem")
    async with open_books(tmp_path, clock) as books:
        books.keys.ring.learn = noted
        await books.room.rotate(make_principal(agent=None, scopes=frozenset({"admin"})))
        trust = Trust("urn:ostiary:local", frozenset({"ostiary"}))
        key = load_key(tmp_path / "keys" / "issuer.pem")
        issuer, identity = LocalIssuer(clock, trust, key), LocalIdentity(clock, trust, [])
        terms = IssuerTerms(0, 1, nobody, noted)
        await IssuerKeyRotation(tmp_path / "keys", clock, issuer, identity, terms).rotate()
        await PayloadKeyRotation(tmp_path, books.keys.kek, books.ledger, clock, 0, noted).rotate()
    assert len(seen) == 3
    clean = Redactor(known).text
    for content in seen.values():
        is_pem = content.startswith(b"-----")
        shown = content.decode().splitlines()[1] if is_pem else content.hex()
        assert shown not in clean(f"a {shown} b")
        assert is_pem or base64.b64encode(content).decode() not in clean(base64.b64encode(content).decode())


async def nobody() -> frozenset[str]:
    """No other gateway."""
    return frozenset()
