"""Pins at the surface: who may look, who may approve, and what the command line shows before it approves."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import reviewer_key
from gateway.cli.root import ostiary
from gateway.core.pinning import Cause, Described, Dossier, PinState, pin_message
from gateway.core.suspicion import Suspicion
from gateway.core.tool import definition_digest
from tests.edge_world import Edge
from tests.fakes.callers import AGENT
from tests.fakes.pins import FakePinDesk
from tests.served_edge import served

OLD = {"name": "echo", "description": "one\ntwo", "inputSchema": {"type": "object"}}
NEW = {"name": "echo", "description": "one\nthree\u202e", "inputSchema": {"type": "object", "minProperties": 0.5}}


def described(definition: dict[str, Any], url: str = "http://up.test/mcp") -> Described:
    """A tool of the server ``up``."""
    return Described(url, definition, definition_digest("up", "mcp", url, {"tool": definition, "binding": {}}))


DOSSIER = Dossier(
    "up.echo",
    PinState.QUARANTINED,
    Cause.CHANGED,
    described(OLD),
    described(NEW),
    (Suspicion("unicode.bidi", "/description", "three\\u202e"),),
)


def edge(*dossiers: Dossier, roles: tuple[str, ...] = ()) -> Edge:
    """A gateway with these tools and an administrator."""
    made = Edge(pins=FakePinDesk(roles=roles, dossiers={one.tool: one for one in dossiers or (DOSSIER,)}))
    person = replace(AGENT, agent=None, user="adam", scopes=frozenset({"admin"}))
    made.world.identity.tokens["adam"] = person
    made.world.identity.tokens["bot"] = replace(person, agent="bot")
    made.world.identity.tokens["runner"] = replace(person, run="r-1")
    return made


@pytest.mark.requirement("GOV-1")
@pytest.mark.parametrize("token", ["good", "person", "noscope", "auditor", "bot", "runner", None])
async def test_nobody_but_an_administrator_approves(token: str | None) -> None:
    """No agent, whatever its scopes; no run's token; no auditor, who may look."""
    made = edge()
    async with made.client(token) as client:
        said = await client.post("/v1/tools/up.echo/pin", json={"digest": described(NEW).digest})
        assert said.status_code in {401, 403}
        looked = (await client.get("/v1/tools/up.echo/pin")).status_code
        assert (looked == 200) is (token == "auditor")
    assert made.pins.given == []


async def test_what_is_shown_and_what_is_approved() -> None:
    """Both definitions, what is odd, and the digest of each; the word reaches the desk as it was given."""
    made = edge()
    async with made.client("adam") as adam:
        found = (await adam.get("/v1/tools/up.echo/pin")).json()
        assert (found["approved"]["definition"], found["live"]["definition"]) == (OLD, NEW)
        assert (found["state"], found["cause"]) == ("quarantined", "changed")
        assert found["suspicions"] == [{"rule": "unicode.bidi", "path": "/description", "excerpt": "three\\u202e"}]
        digest = found["live_digest"]
        body = {"digest": digest, "key_id": "ab" * 16, "signature": "cd" * 64}
        assert (await adam.post("/v1/tools/up.echo/pin", json=body)).json()["state"] == "pinned"
        listed = (await adam.get("/v1/pins")).json()["pins"]
        assert [(one["tool"], one["live_digest"]) for one in listed] == [("up.echo", digest)]
        assert (await adam.get("/v1/tools/up.none/pin")).status_code == 404
    ((tool, consent),) = made.pins.given
    assert (tool, consent.digest, consent.key_id) == ("up.echo", digest, "ab" * 16)
    assert consent.signature == bytes.fromhex("cd" * 64)


@pytest.mark.requirement("CLEAN-2")
@pytest.mark.parametrize(
    "body", [{}, {"digest": "x"}, {"digest": "A" * 64}, {"digest": "0" * 64, "force": True}, {"digest": 5}]
)
async def test_a_word_that_is_none_approves_nothing(body: dict[str, Any]) -> None:
    """Closed body, exact digest."""
    made = edge()
    async with made.client("adam") as adam:
        assert (await adam.post("/v1/tools/up.echo/pin", json=body)).status_code in {400, 422}
    assert made.pins.given == []


async def test_readiness_says_how_many_wait() -> None:
    """To who may know the whole; tools that wait make nothing unready."""
    made = edge()
    async with made.client("admin") as admin:
        page = (await admin.get("/readyz")).json()
    assert page["tools"] == {"pinned": 0, "quarantined": 1, "new": 0}
    assert page["status"] == "ready"
    async with made.client(None) as stranger:
        assert "tools" not in (await stranger.get("/readyz")).json()


async def test_the_list_of_tools_says_which_cannot_be_used() -> None:
    """Beside the approved definition."""
    quarantined = replace(DOSSIER, tool="erp.stock")
    made = edge(quarantined)
    async with made.client() as client:
        states = {one["name"]: one["state"] for one in (await client.get("/v1/tools")).json()["tools"]}
    assert states.pop("erp.stock") == "quarantined"
    assert set(states.values()) <= {"pinned"}


def ask(made: Edge, folder: Path, *words: str) -> Result:
    """Run a command as the administrator."""
    with served(made, folder / "admin.sock") as url:
        env = {"OSTIARY_URL": url, "OSTIARY_TOKEN": "adam", "OSTIARY_STATE": None}
        return CliRunner().invoke(ostiary, ["tool", *words], env=env)


def test_the_diff_is_readable_and_hides_nothing(tmp_path: Path) -> None:
    """Line by line, each with its place; hidden characters as escapes; what is odd; how to approve it."""
    done = ask(edge(), tmp_path, "diff")
    assert done.exit_code == 0, done.output
    for line in (
        "up.echo  (quarantined: changed)",
        f"--- approved: {described(OLD).digest}",
        f"+++ now: {described(NEW).digest}",
        "-/description | two",
        "+/description | three\\u202e",
        "+/inputSchema/minProperties: 0.5",
        "! unicode.bidi at /description: three\\u202e",
        f"approve it: ostiary tool pin up.echo --digest {described(NEW).digest}",
    ):
        assert line in done.stdout.splitlines(), done.stdout
    assert "\u202e" not in done.stdout


def test_a_new_tool_and_one_as_approved(tmp_path: Path) -> None:
    """Nothing was approved: every line is new. Nothing waits: it is said."""
    new = replace(DOSSIER, state=PinState.NEW, cause=None, approved=None, suspicions=())
    said = ask(edge(new), tmp_path, "diff", "up.echo").stdout.splitlines()
    assert "--- approved: nothing" in said
    assert "+endpoint: http://up.test/mcp" in said
    good = replace(DOSSIER, state=PinState.PINNED, cause=None, live=described(OLD), suspicions=())
    assert ask(edge(good), tmp_path, "diff").stdout == "every tool is as it was approved\n"
    assert "no difference to what was approved" in ask(edge(good), tmp_path, "diff", "up.echo").stdout


def test_a_moved_tool_shows_both_addresses(tmp_path: Path) -> None:
    """The same words at another place."""
    moved = replace(DOSSIER, cause=Cause.ENDPOINT, live=described(OLD, "http://evil.test/mcp"))
    said = ask(edge(moved), tmp_path, "diff").stdout.splitlines()
    assert {"-endpoint: http://up.test/mcp", "+endpoint: http://evil.test/mcp"} <= set(said)


@pytest.mark.parametrize("side", ["approved", "live"])
def test_a_gateway_that_shows_one_thing_and_means_another_is_found_out(side: str, tmp_path: Path) -> None:
    """The digest is of other words, or of another tool's."""
    lying = replace(DOSSIER, **{side: replace(described(OLD), digest="0" * 64)})  # type: ignore[arg-type]
    for words in (["diff"], ["pin", "up.echo", "--digest", "0" * 64]):
        done = ask(edge(lying), tmp_path, *words)
        assert done.exit_code == 1
        assert "not what its digest names" in done.stderr


def test_exactly_the_shown_digest_is_approved(tmp_path: Path) -> None:
    """Another one is refused before anything is sent."""
    made = edge()
    refused = ask(made, tmp_path, "pin", "up.echo", "--digest", described(OLD).digest)
    assert (refused.exit_code, made.pins.given) == (1, [])
    done = ask(made, tmp_path, "pin", "up.echo", "--digest", described(NEW).digest, "--json")
    assert json.loads(done.stdout.splitlines()[-1])["state"] == "pinned"
    assert [(tool, consent.digest) for tool, consent in made.pins.given] == [("up.echo", described(NEW).digest)]


def test_where_roles_are_named_the_key_signs(tmp_path: Path) -> None:
    """Over the log, the tool, what is approved and what was before."""
    made = edge(roles=("security",))
    key = tmp_path / "reviewer.pem"
    runner = CliRunner().invoke(ostiary, ["reviewer", "keygen", "--key", str(key)])
    assert runner.exit_code == 0
    done = ask(made, tmp_path, "pin", "up.echo", "--digest", described(NEW).digest, "--key", str(key))
    assert done.exit_code == 0, done.output
    ((_, consent),) = made.pins.given
    message = pin_message("test", "up.echo", described(NEW).digest, described(OLD).digest)
    assert consent.signature == reviewer_key.load(key).private.sign(message)
    assert consent.key_id == reviewer_key.load(key).id
