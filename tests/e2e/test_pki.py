"""Client certificates end to end: a gateway process before an API that lets in whom a real OpenBao certifies."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.servers import vault_pki
from deploy.servers.openbao import OpenBao, openbao
from deploy.servers.process import short_folder
from deploy.servers.vault_pki import Issuing
from deploy.servers.vault_setup import Entry
from tests.fakes.relay import Relay, relaying
from tests.gateways import ostiary, serving, until
from tests.ledgers import content
from tests.mutual_tls import Club, authority, club, revoked
from tests.servers import PERIOD_S

NAME = "gateway.ostiary.test"
_AGENT = "ap-agent"
_ENTRY = Entry("ostiary-gateway", "the-gateways-own-secret", PERIOD_S)
_ENVIRONMENT = {"PKI_VAULT_SECRET_ID": _ENTRY.secret_id}
_CATALOGUE = """
[[tool]]
server = "club"
name = "enter"
effect = "read"
description = "Says who came."
input_schema = { type = "object", additionalProperties = false }
[tool.http]
method = "GET"
path = "/orders"
"""
_SETTINGS = """
state = "state"
catalogue = ["tools.toml"]
[listen]
port = 0
[policy]
deadline_ms = 1000 # the machine of a test is busy
[policy.data.gateway.scope.agents.ap-agent]
allow = ["club.*"]
[policy.data.gateway.scope.users.dora]
allow = ["club.*"]
[policy.data.gateway.scope.users.erik]
allow = ["club.*"]
[vault]
address = "@VAULT@"
role_id = "ostiary-gateway"
secret_id = { env = "PKI_VAULT_SECRET_ID" }
[leases.client]
provider = "pki"
role = "client"
common_name = "gateway.ostiary.test"
[upstreams.club]
kind = "http"
origin = "@ORIGIN@"
ca_certificate = "club.pem"
allow_networks = ["127.0.0.0/8"]
credential = "client"
"""


@dataclass(frozen=True)
class Place:
    """A gateway's folder, and the servers it is to stand before."""

    folder: Path
    bao: OpenBao
    club: Club
    relay: Relay

    @property
    def config(self) -> Path:
        """The settings."""
        return self.folder / "gateway.toml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Settings and servers for all tests here."""
    folder, server = tmp_path_factory.mktemp("pki"), tmp_path_factory.mktemp("club")
    assert ostiary("init", str(folder)).returncode == 0
    with (
        openbao(vault_pki.requests([Issuing("client", NAME)], _ENTRY)) as bao,
        club(server, authority(bao)) as found,
        short_folder("ostiary-relay-") as between,
        relaying(between / "bao.sock", bao.socket) as relay,
    ):
        (folder / "club.pem").write_bytes(found.certificate.read_bytes())
        (folder / "tools.toml").write_text(_CATALOGUE)
        settings = _SETTINGS.replace("@VAULT@", f"unix://{relay.path}").replace("@ORIGIN@", found.origin)
        (folder / "gateway.toml").write_text(settings)
        yield Place(folder, bao, found, relay)


@pytest.mark.requirement("CRED-1")
def test_two_people_never_share_certificate_or_connection(place: Place) -> None:
    """Reads one after the other; all revoked with the answer; the log names each by its serial, and no key is kept."""
    with serving(place.folder, **_ENVIRONMENT) as door:
        tokens = [door.token(user, agent=_AGENT) for user in ("dora", "erik", "dora")]
        answers = [door.call(token, "club.enter") for token in tokens]
        assert [answer.status_code for answer in answers] == [200] * 3, answers[0].text
        serials = [visit.serial for visit in place.club.visits]
        assert (len(set(serials)), len({visit.connection for visit in place.club.visits})) == (3, 3)
        assert set(serials) <= revoked(place.bao)
        leased = [one["body"] for one in door.records(type="credential.leased")]
        named = [one["serial"] for one in leased if one["kind"] == "certificate"]
        assert [int(serial.replace(":", ""), 16) for serial in named] == serials
        causes = [one["body"]["cause"] for one in door.records(type="credential.revoked")]
        assert causes.count("ended") == 3
        assert {one["request"] for one in leased if one["kind"] == "certificate"} <= _words(place)
        said = [json.dumps(door.records()), door.words(), *(answer.text for answer in answers)]
    keys = _keys(bytes(place.relay.answers))
    assert len(keys) == 3
    for key in keys:
        assert key not in "".join(said)
        assert key.encode() not in content(place.folder)
    assert ostiary("audit", "verify", "--state", str(place.folder / "state")).returncode == 0


def _words(place: Place) -> set[str]:
    return {json.loads(line)["request"]["id"] for line in place.bao.audit_log.read_text().splitlines()}


def _keys(answers: bytes) -> list[str]:
    parts = answers.decode(errors="replace").split("-----BEGIN PRIVATE KEY-----\\n")[1:]
    return [part.split("\\n")[0] for part in parts]


def test_what_a_killed_gateway_issued_is_revoked_at_the_next_start(place: Place) -> None:
    """By the journal: the token ends, and what was issued with it."""
    place.relay.answers.clear()
    with serving(place.folder, **_ENVIRONMENT) as door:
        token = door.token(agent=_AGENT)
        assert door.call(token, "club.enter").status_code == 200
        door.process.kill()
        door.process.wait()
    with serving(place.folder, **_ENVIRONMENT) as second:
        until(lambda: "swept" in [one["body"]["cause"] for one in second.records(type="credential.revoked")])
    assert {visit.serial for visit in place.club.visits} <= revoked(place.bao)


def test_check_issues_one_and_names_what_is_wrong(place: Place) -> None:
    """The certificate is revoked again; a name the role does not allow is said with the setting."""
    config, before = ("--config", str(place.config)), revoked(place.bao)
    said = ostiary("check", *config, **_ENVIRONMENT)
    assert said.returncode == 0, said.stdout
    assert "a certificate was issued and revoked" in said.stdout
    assert len(revoked(place.bao) - before) == 1
    text = place.config.read_text()
    place.config.write_text(text.replace(NAME, "somebody.else.test"))
    said = ostiary("check", *config, **_ENVIRONMENT)
    place.config.write_text(text.replace("club.pem", "none.pem"))
    unread = ostiary("check", *config, **_ENVIRONMENT)
    place.config.write_text(text)
    assert said.returncode == 1
    assert "a role that allows the name somebody.else.test" in said.stdout
    assert unread.returncode != 0
    assert "upstreams.club.ca_certificate" in unread.stdout + unread.stderr
