"""What an upstream asks of a client, and what is answered, in the signed log."""

from collections.abc import AsyncIterator

import pytest

from gateway.adapters.ledger.storage.site import Site
from gateway.core.decision import Effect
from gateway.core.errors import MalformedRequest
from gateway.core.mcpwire.asking import Asks
from gateway.core.ports import Said, Stage
from tests.evidence import make_call, make_decision, make_principal
from tests.ledgers import Books, content, open_books


@pytest.fixture
async def books(site: Site) -> AsyncIterator[Books]:
    """An open ledger of its own."""
    async with open_books(site) as opened:
        yield opened


async def test_what_an_upstream_asks_and_what_is_answered_are_records(books: Books) -> None:
    """Each is durable when it is handed on: the kind and the decision in the leaf, the words sealed beside it."""
    call, principal = make_call(id=books.clock.uuid(), at_us=books.clock.now_us()), make_principal()
    said = [
        Said(Stage.ASKED, Asks.ELICITATION, make_decision(), b'{"message":"Who are you, zoe?"}'),
        Said(Stage.ANSWERED, Asks.ELICITATION, make_decision(Effect.DENY), b'{"action":"decline"}'),
    ]

    async def refused() -> None:
        async with books.log.open(call, principal) as entry:
            entry.entered(await books.runs.enter(call, principal))
            for one in said:
                await entry.note(one)
                assert books.types(call.id)[-1] == f"input.{one.stage}"
            raise MalformedRequest("no")

    with pytest.raises(MalformedRequest):
        await refused()
    question, answer = books.records("input.asked")[0], books.records("input.answered")[0]
    assert (question["body"]["kind"], question["body"]["effect"], answer["body"]["effect"]) == (
        "elicitation",
        "allow",
        "deny",
    )
    assert [record["payloads"][0]["role"] for record in (question, answer)] == ["request", "result"]
    assert b"zoe" not in content(books.folder)
    assert books.verify().ok
