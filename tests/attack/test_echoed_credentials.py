"""A tool that gives back the very credential it was called with: it is nowhere to be seen, in any usual encoding."""

import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.adapters.credentials import CredentialBroker, StaticCredentials
from gateway.core.call import Lease, Raw
from gateway.core.catalog import Catalog, Shelf
from gateway.core.errors import OutcomeUnknown
from gateway.core.pipeline import handle
from gateway.core.ports import Ports
from gateway.core.redact import Redactor
from gateway.core.tool import Tool
from gateway.core.verify import Verifier
from gateway.logs import JsonLines
from tests.evidence import make_tool
from tests.fakes import World
from tests.fakes.callers import FakeIdentity
from tests.fakes.kills import fake_switch
from tests.fakes.leases import Mint
from tests.hunting.spellings import SPELLINGS
from tests.ledgers import Books, content, open_books

_LOG = logging.getLogger("tests.echo")


def plain(said: str) -> dict[str, Any]:
    """A result with the secret as text and as structured content."""
    return {"content": [{"type": "text", "text": said}], "structuredContent": {"dsn": said}}


def everywhere(said: str) -> dict[str, Any]:
    """A result with the secret in every field a result may have."""
    picture = base64.b64encode(b"PNG" + said.encode()).decode()
    return {
        "content": [
            {"type": "text", "text": f"a {said} b", "annotations": {"audience": [said]}, "_meta": {said: 1}},
            {"type": "image", "data": picture, "mimeType": f"image/{said}"},
            {"type": "resource_link", "uri": f"https://example.org/{said}", "name": said, "title": said},
            {"type": "resource", "resource": {"uri": f"file:///{said}", "text": said, "mimeType": said}},
        ],
        "structuredContent": {said: said, "deep": [{"list": [said, {said: [said]}]}], "password": "unknown to us"},
        "_meta": {"trace": said},
        "isError": True,
    }


class Echo:
    """An upstream that gives its login back, logs it, and may fail with it in its words."""

    def __init__(self) -> None:
        self.form: Callable[[str], str] = SPELLINGS["raw"]
        self.fails = False
        self.result: Callable[[str], dict[str, Any]] = plain
        self.said: list[str] = []

    async def invoke(self, lease: Lease) -> Raw:
        """Answer with the credential."""
        assert lease.login is not None
        said = self.form(lease.login.password)
        self.said.append(said)
        _LOG.debug("called with %s and %r", said, lease)
        if self.fails:
            raise ConnectionError(f"cannot use {said}")
        body = msgspec.json.encode(self.result(said))
        return Raw(lease, body, msgspec.json.decode(body))

    async def ping(self) -> None:
        """Always well."""


@asynccontextmanager
async def house(folder: Path, echo: Echo) -> AsyncIterator[tuple[Ports, Books, Mint]]:
    """The real pipeline with the real ledger, broker, redactor and catalogue before the echo."""
    mint, tool = Mint(), make_tool("echo", server="erp", credential="erp-read")
    redactor = Redactor(mint.known)
    async with open_books(folder, mint.clock, clean=redactor.text) as books, mint.leases() as leases:
        world = World(clock=mint.clock)
        verifier, catalog = Verifier(), Catalog({"erp": echo})
        verifier.prepare([tool])
        catalog.replace([_shelf(tool)])
        ports = Ports(
            clock=mint.clock,
            identity=FakeIdentity(world.journal),
            kills=fake_switch(),
            runs=books.runs,
            catalog=catalog,
            policy=world.policy,
            approvals=world.approvals,
            limits=world.limits,
            broker=CredentialBroker(StaticCredentials({}, mint.known), leases),
            verifier=verifier,
            redactor=redactor,
            audit=books.log,
            pace=world.pace,
            meter=books.meter,
            settings=world.settings,
        )
        yield ports, books, mint


def _shelf(tool: Tool) -> Shelf:
    return Shelf(tool, lambda _: [])


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> StringIO:
    """Where the operator's log goes, at its most talkative."""
    return StringIO()


@pytest.mark.requirement("CRED-3", "REDACT-1")
async def test_an_echoed_credential_is_in_no_answer_record_payload_or_log_line(
    tmp_path: Path, lines: StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    """Seventeen encodings: taken out of the answer, the sealed payload and the log, debug lines and errors included."""
    echo = Echo()
    async with house(tmp_path, echo) as (ports, books, mint):
        handler = logging.StreamHandler(lines)
        handler.setFormatter(JsonLines(Redactor(mint.known).text))
        _LOG.addHandler(handler)
        _LOG.setLevel(logging.DEBUG)
        world = World(clock=mint.clock)
        for name, form in SPELLINGS.items():
            echo.form = form
            answer = await handle(world.call("erp.echo"), ports)
            assert answer.redactions >= 1, name
            assert echo.said[-1] not in answer.body.decode(), name
            sealed = await books.reader.payload(answer.call_id, "result")
            assert echo.said[-1] not in json.dumps(sealed, ensure_ascii=False), name
        _LOG.removeHandler(handler)
        logged, records = lines.getvalue(), json.dumps(books.records())
        passwords = [echo.said[0]]
        for said in [*echo.said, *passwords]:
            assert said not in logged
            assert said not in records
        assert "[redacted:known_value]" in logged
        assert len(books.records("redaction")) == len(SPELLINGS)
    files = content(tmp_path)
    assert not [said for said in echo.said if said.encode() in files]


@pytest.mark.requirement("CRED-3")
async def test_an_upstream_that_fails_with_the_credential_in_its_words_shows_it_to_nobody(tmp_path: Path) -> None:
    """Not the caller, and not the sealed error payload, which keeps an upstream's own words."""
    echo = Echo()
    echo.fails = True
    async with house(tmp_path, echo) as (ports, books, mint):
        call = World(clock=mint.clock).call("erp.echo")
        with pytest.raises(OutcomeUnknown) as caught:
            await handle(call, ports)
        assert echo.said[0] not in caught.value.detail
        sealed = await books.reader.payload(call.id, "error")
        assert echo.said[0] not in json.dumps(sealed)
        assert mint.vault.logins == {}


@pytest.mark.requirement("REDACT-1", "CRED-3")
async def test_no_field_of_a_result_shows_the_credential(tmp_path: Path) -> None:
    """Texts, annotations, media, links, resources, keys, nested lists: taken out, and the rest is still there."""
    echo = Echo()
    echo.result = everywhere
    async with house(tmp_path, echo) as (ports, books, mint):
        answer = await handle(World(clock=mint.clock).call("erp.echo"), ports)
        secret = echo.said[0]
        picture = base64.b64encode(b"PNG" + secret.encode()).decode()
        for form in (secret, picture):
            assert form not in answer.body.decode()
        result = msgspec.json.decode(answer.body)
        assert [block["type"] for block in result["content"]] == ["text", "image", "resource_link", "resource"]
        assert result["structuredContent"]["password"] == "[redacted:secret_key]"
        assert answer.is_error
        sealed = json.dumps(await books.reader.payload(answer.call_id, "result"))
        assert secret not in sealed
