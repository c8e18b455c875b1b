"""What the redactor knows before anybody has said anything: what the settings name, and the gateway's own keys."""

import base64
from pathlib import Path

import pytest

from gateway.core.known import KnownValues
from gateway.core.redact import Redactor
from gateway.parts import acquainting
from gateway.settings import file as settings_file
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
