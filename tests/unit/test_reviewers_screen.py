"""What a reviewer reads at a terminal: no text begins a row with words of its own, and what is shown is signed."""

import json
import os
import shutil
from hashlib import sha256
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.cli import folding, reviewer_key
from gateway.cli.approving import approval, approve
from gateway.cli.pins import diff, pin
from gateway.cli.reach import Reach
from gateway.cli.reviewer_key import ReviewerKey
from gateway.core.pinning import pin_message
from gateway.core.signing import is_signed
from gateway.core.tool import ConnectorKind, definition_digest

WIDTH = 80
POSED = "signed     vera: approve"


def posing(before: int) -> str:
    """A text that would show ``POSED`` at the beginning of a row, where ``before`` characters stand before it."""
    return f"rent{' ' * (2 * WIDTH - before - 4)}{POSED}"


def rows(said: str) -> list[str]:
    """What a terminal of that width makes of it."""
    return [line[at : at + WIDTH] for line in said.splitlines() for at in range(0, max(len(line), 1), WIDTH)]


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "is_terminal", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((WIDTH, 24)))


@pytest.mark.parametrize(("command", "given"), [(approval, ["show", "id-1"]), (approve, ["id-1"])])
def test_an_argument_cannot_pose_as_a_line(command: Any, given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where an approval is shown nor where it is about to be signed."""
    text = json.dumps({"memo": posing(len('    "memo": "'))}, separators=(",", ":"))
    monkeypatch.setattr(Reach, "get", lambda *_: approval_of(text))
    monkeypatch.setattr(reviewer_key, "load", lambda _: None)
    said = CliRunner().invoke(command, [*given, "--url", "http://127.0.0.1:1", "--token", "t"], input="n\n").output
    assert POSED in said
    assert not [row for row in rows(said) if row.startswith("signed")]


def test_a_description_cannot_pose_as_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is to be copied is in one piece."""
    found = tool_of(posing(len('+/description: "')))
    monkeypatch.setattr(Reach, "get", lambda *_: found)
    said = CliRunner().invoke(diff, ["a.b", "--url", "http://127.0.0.1:1", "--token", "t"]).output
    assert POSED in said
    assert not [row for row in rows(said) if row.startswith("signed")]
    assert f"ostiary tool pin a.b --digest {found['live']['digest']}" in said


def test_what_was_shown_as_approved_before_is_what_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that says besides that it was something else gets no word on that."""
    private, found = Ed25519PrivateKey.generate(), tool_of("new")
    key = ReviewerKey(private, private.public_key().public_bytes_raw(), "id")
    found |= {"approved": tool_of("old")["live"], "approved_digest": "0" * 64, "origin": "log", "roles": ["admin"]}
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(Reach, "get", lambda *_: found)

    def post(_: Reach, __: str, body: dict[str, Any]) -> dict[str, Any]:
        sent.append(body)
        return {"state": "pinned", "tool": "a.b"}

    monkeypatch.setattr(Reach, "post", post)
    monkeypatch.setattr(reviewer_key, "load", lambda _: key)
    digest = found["live"]["digest"]
    CliRunner().invoke(pin, ["a.b", "--digest", digest, "--url", "http://127.0.0.1:1", "--token", "t"])
    message = pin_message("log", "a.b", digest, found["approved"]["digest"])
    assert is_signed(key.public, bytes.fromhex(sent[0]["signature"]), message)


def approval_of(text: str) -> dict[str, Any]:
    """An approval of a call with these arguments, as a gateway shows it."""
    statement = {"approval": "id-1", "tool": "bank.pay", "expires_us": 10**15, "requirements": [], "user": "alice"}
    statement |= {"arguments_sha256": sha256(text.encode()).hexdigest()}
    shown = {"id": "id-1", "state": "pending", "tool": "bank.pay", "expires_us": 10**15, "arguments_json": text}
    return shown | {"statement": statement, "requirements": [], "reasons": [], "signatures": []}


def tool_of(description: str) -> dict[str, Any]:
    """A tool that waits for approval, as a gateway shows it."""
    definition = {"name": "b", "description": description}
    digest = definition_digest("a", ConnectorKind.MCP, "http://up", {"tool": definition, "binding": {}})
    live = {"definition": definition, "endpoint": "http://up", "digest": digest}
    return {"tool": "a.b", "state": "new", "live": live, "approved": None, "suspicions": []}
