"""The log's signing keys where several gateways write it: nobody is left who could not sign."""

import shutil
from functools import partial

import pytest
from anyio import to_thread
from click.testing import CliRunner

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.books.rotating import KeyRoom, KeyTerms
from gateway.adapters.ledger.keyring.key_files import LOG_KEY, StateRefused
from gateway.adapters.ledger.verification.verify_keys import keys_of
from gateway.cli.root import ostiary
from gateway.core.errors import Conflict, Unavailable
from tests.evidence import make_principal
from tests.ledgers import ORIGIN, Books, open_books
from tests.replicas import Sites, both, sites
from tests.waiting import until, until_asked

__all__ = ["both", "sites"]

PERSON = make_principal(agent=None, scopes=frozenset({"admin"}))


def room(books: Books, *, blind: bool = False) -> KeyRoom:
    """What rotates; ``blind``: it does not look for other gateways."""
    terms = KeyTerms(overlap_h=1)
    if blind:
        return KeyRoom(books.ledger, books.keys, books.clock, terms)
    return KeyRoom(books.ledger, books.keys, books.clock, terms, partial(books.reader.ask, books.site.others))


async def test_a_key_is_not_rotated_while_another_gateway_writes(both: tuple[Books, Books]) -> None:
    """It would not have the new one; nothing is made or recorded."""
    first, second = both
    before = sorted(path.name for path in (first.folder / "keys").iterdir())
    with pytest.raises(Conflict, match="other gateways write this log"):
        await room(first).rotate(PERSON)
    assert sorted(path.name for path in (first.folder / "keys").iterdir()) == before
    assert len(second.records("key")) == 1


async def test_a_gateway_that_is_alone_rotates_and_others_join_with_its_keys(sites: Sites) -> None:
    """From then on each of them signs with both keys, and the log verifies by the first one."""
    async with open_books(sites.site("a")) as books:
        new = (await room(books).rotate(PERSON)).key
    async with open_books(sites.site("a")) as books, open_books(sites.site("b")) as other:
        for one in (other, books, other):
            await one.ledger.append(())
            assert one.verify().findings == []
        await room(other, blind=True).retire(PERSON)  # the other's key record is read before the next record
        await books.ledger.append(())
        assert [reign.key for reign in books.keys.ring.history.in_force] == [new]
        assert books.verify().findings == []


async def test_a_key_that_one_retired_is_gone_at_the_other(sites: Sites) -> None:
    """Within a round or two, though that one writes nothing; a proof signed since is followed from the first key."""
    async with open_books(sites.site("a"), SystemClock()) as books:
        old = books.keys.name
        await room(books).rotate(PERSON)
    async with open_books(sites.site("a"), SystemClock()) as books, open_books(sites.site("b"), SystemClock()) as other:
        assert other.keys.ring.has(old)
        await books.room.retire(PERSON)
        await until(lambda: not (other.folder / "keys" / LOG_KEY).exists())
        assert not other.keys.ring.has(old)
        note = await books.tree.checkpoint()
        assert await to_thread.run_sync(keys_of, other.site, old, note) == (books.keys.ring.history.newest.key,)
        assert other.verify().findings == []


async def test_a_proof_by_a_later_key_is_followed_in_the_database(sites: Sites) -> None:
    """`verify --proof` beside the log needs its first key alone, which has signed nothing of it any more."""
    async with open_books(sites.site("a")) as books:
        await books.room.rotate(PERSON)
        await books.room.retire(PERSON)
        (books.folder / "one.tlog-proof").write_text(await books.tree.prove(0))
    at, state = sites.target, str(sites.folder / "a")
    (sites.folder / "password").touch(0o600)
    (sites.folder / "password").write_text(str(at.password))
    (sites.folder / "gateway.toml").write_text(
        f'state = "a"\n[audit]\norigin = "{ORIGIN}"\n[audit.postgres]\npassword = {{ file = "password" }}\n'
        f'url = "postgresql:///{at.database}?host={at.host}&user={at.user}"\n'
    )
    words = ["audit", "verify", "--state", state, "--proof", f"{state}/one.tlog-proof"]
    done = await to_thread.run_sync(CliRunner().invoke, ostiary, words)
    assert (done.exit_code, done.stdout.startswith("proven: record 0 ")) == (0, True), done.output


async def test_a_gateway_without_the_key_in_force_writes_nothing(sites: Sites) -> None:
    """Neither one that was running when a key came it does not have, nor one that starts without it."""
    async with open_books(sites.site("a")) as books, open_books(sites.site("b")) as other:
        sites.cut(other)  # or it would be known to live, and the record refused
        await until_asked(partial(_is_alone, books))
        await room(books, blind=True).rotate(PERSON)
        size = len(books.records())
        with pytest.raises(Unavailable):
            await other.ledger.append(())
        assert len(books.records()) == size
        assert books.verify().findings == []
    lacking = sites.site("c")
    for path in (lacking.folder / "keys").glob("log-*"):
        path.unlink()
    with pytest.raises(StateRefused, match="signed by a key that is not here"):
        async with open_books(lacking):
            raise AssertionError("it opened")
    shutil.rmtree(lacking.folder)
    async with open_books(sites.site("c")) as joined:
        assert joined.verify().findings == []


async def _is_alone(books: Books) -> bool:
    return not await books.reader.ask(books.site.others)
