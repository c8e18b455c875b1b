"""What was minted and ended, in the signed log: the order, what the leaf says, and what the next process finds."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.adapters.ledger.books.leases import SignedLeaseJournal
from gateway.adapters.ledger.storage.files import DATABASE
from gateway.core.call import Intent, Login
from gateway.core.errors import Unavailable
from gateway.core.leasing import Holder, MintedLogin, MintingToken, Provider, Template, holder_of
from tests.clock import StepClock
from tests.fakes.leases import KEY, READ, WRITE
from tests.ledgers import Books, Walk, check, content, open_books
from tests.log_schema import conforming

TOKEN = MintingToken("accessor-1", "s.secret-token", 30, "request-1")
MINTED = MintedLogin("database/creds/erp-read/abc", Login("v-erp-read-1", "Passw0rdOfLogin"), 60, "request-2")
DAY_US = 24 * 3600 * 1_000_000


@asynccontextmanager
async def open_journal(folder: Path, clock: StepClock | None = None) -> AsyncIterator[tuple[Books, SignedLeaseJournal]]:
    """A ledger and the lease journal of a new process on it."""
    async with open_books(folder, clock) as books:
        yield books, SignedLeaseJournal(books.ledger, books.reader, books.keys, books.clock)


async def walk(books: Books, journal: SignedLeaseJournal) -> None:
    """One call with a login, as the broker leads it."""

    async def act(intent: Intent) -> None:
        holder = holder_of(intent)
        await journal.opened(Holder(holder.run_id), READ, TOKEN)
        journal.leased(holder, READ, TOKEN, MINTED)
        journal.pending(holder, READ, MINTED, "vault_slow")
        journal.revoked(holder, READ, MINTED, "reconciled")

    await Walk(books, act=act).go()


async def test_records_stand_between_intent_and_ending_and_hold_no_secret(tmp_path: Path) -> None:
    """In order, with the vault's request ids in the leaf, lease id and accessor sealed, and the password nowhere."""
    async with open_journal(tmp_path) as (books, journal):
        await walk(books, journal)
        journal.closed(Holder(), READ.name, TOKEN.accessor, "stopped")
        await books.ledger.append(())
        assert books.types()[2:] == [
            "decision",
            "tool.requested",
            "credential.leased",
            "credential.leased",
            "credential.revoke_pending",
            "credential.revoked",
            "tool.completed",
            "credential.revoked",
        ]
        token, login, pending, revoked = books.records()[4:8]
        assert (token["body"]["kind"], token["call_id"], token["body"]["request"]) == ("token", None, "request-1")
        assert (login["body"]["kind"], login["body"]["role"], login["body"]["ttl_s"]) == ("login", "erp-read", 60)
        assert login["body"]["token"] == token["body"]["mark"]
        assert login["body"]["mark"] == pending["body"]["mark"] == revoked["body"]["mark"]
        assert (pending["body"]["cause"], revoked["body"]["cause"]) == ("vault_slow", "reconciled")
        call_id = login["call_id"]
        sealed = await books.reader.payload(call_id, "lease")
        assert sealed == {"lease_id": MINTED.lease_id, "user": "v-erp-read-1"}
        leaves = json.dumps(books.records())
        for word in (TOKEN.accessor, MINTED.lease_id, MINTED.login.user, MINTED.login.password, TOKEN.secret):
            assert word not in leaves
        assert books.verify().ok
    everything = content(tmp_path)
    for secret in (MINTED.login.password, TOKEN.secret, MINTED.lease_id):
        assert secret.encode() not in everything


async def test_the_reading_of_a_static_secret_is_called_so(tmp_path: Path) -> None:
    """Kind read, provider kv: its end says nothing about the secret; no user is sealed, and the value is nowhere."""
    value = MintedLogin("secret/data/erp/api@accessor-1", Login("", "ak-0123456789"), 30, "request-2", "accessor-1")
    async with open_journal(tmp_path) as (books, journal):

        async def act(intent: Intent) -> None:
            holder = holder_of(intent)
            await journal.opened(Holder(holder.run_id), KEY, TOKEN)
            journal.leased(holder, KEY, TOKEN, value)
            journal.pending(holder, KEY, value, "vault_slow")
            journal.revoked(holder, KEY, value, "reconciled")

        await Walk(books, act=act).go()
        token, *ours = [conforming(one) for one in books.records() if one["type"].startswith("credential.")]
        assert (token["body"]["kind"], token["body"]["provider"]) == ("token", "kv")
        assert [one["body"]["kind"] for one in ours] == ["read"] * 3
        assert (ours[0]["body"]["provider"], ours[0]["body"]["role"]) == ("kv", "erp/api")
        assert ours[0]["body"]["token"] == token["body"]["mark"]
        assert await books.reader.payload(ours[0]["call_id"], "lease") == {"lease_id": value.lease_id}
        assert books.verify().ok
    assert value.login.password.encode() not in content(tmp_path)


@pytest.mark.requirement("CRED-2")
async def test_what_a_token_was_called_is_known_to_the_next_process(tmp_path: Path) -> None:
    """Sealed beside the accessor; a doubt is pending under the token's mark, until it is said that all was dropped."""
    named = replace(TOKEN, name="00112233445566778899")
    async with open_journal(tmp_path) as (books, journal):
        await journal.opened(Holder(), READ, named)
        await journal.opened(Holder(), WRITE, replace(named, accessor="accessor-2"))
        journal.doubted(Holder(), READ.name, TOKEN.accessor, named.name, "vault_failed")
        journal.closed(Holder(), READ.name, TOKEN.accessor, "idle", reaped=True)
        await books.ledger.append(())
        opened, _, doubted, closed = [conforming(one) for one in books.records() if one["type"].startswith("cred")]
        assert doubted["type"] == "credential.revoke_pending"
        assert (doubted["body"]["kind"], doubted["body"]["mark"]) == ("token", opened["body"]["mark"])
        assert (closed["body"]["mark"], closed["body"]["reaped"]) == (opened["body"]["mark"], True)
        assert named.name not in json.dumps(books.records())
    async with open_journal(tmp_path) as (books, journal):
        (left,) = await journal.leftovers(0)
        assert (left.accessor, left.name) == ("accessor-2", named.name)
        journal.swept(left, reaped=True)
        await books.ledger.append(())
        assert conforming(books.records("credential.revoked")[-1])["body"]["reaped"] is True
        assert books.verify().ok


@pytest.mark.requirement("CRED-2")
async def test_what_is_stuck_for_days_is_known_to_the_next_process(tmp_path: Path) -> None:
    """By what was said of it last: its token was opened longer ago than anybody looks back."""
    clock = StepClock()
    async with open_journal(tmp_path, clock) as (_, journal):
        await journal.opened(Holder(), READ, TOKEN)
        clock.advance(30 * 3600)
        journal.doubted(Holder(), READ.name, TOKEN.accessor, "00112233445566778899", "vault_failed")
    async with open_journal(tmp_path, clock) as (books, journal):
        (left,) = await journal.leftovers(clock.now_us() - DAY_US)
        assert (left.accessor, left.name, left.template) == (TOKEN.accessor, "00112233445566778899", READ.name)
        assert await journal.leftovers(0) == [replace(left, name=None)], (
            "one of a mark; the token's own record is first"
        )
        journal.swept(left, reaped=True)
        assert "00112233445566778899" not in json.dumps(books.records())
    async with open_journal(tmp_path, clock) as (books, journal):
        assert await journal.leftovers(0) == []
        assert books.verify().ok


@pytest.mark.parametrize(("accessor", "kind"), [(None, "certificate"), ("accessor-1", "unrevocable")])
async def test_a_certificate_has_its_serial_number_in_the_leaf(tmp_path: Path, accessor: str | None, kind: str) -> None:
    """And one that nothing revokes is called so; the key is nowhere."""
    login = Login("gateway.example.org", "bm8ga2V5IGF0IGFsbA", "the chain")
    minted = MintedLogin("pki/issue/client/abc", login, 60, "request-2", accessor, "39:dd:2e")
    template = Template("cert", "pki", "client", "client", 120, provider=Provider.PKI)
    async with open_journal(tmp_path) as (books, journal):

        async def act(intent: Intent) -> None:
            holder = holder_of(intent)
            await journal.opened(Holder(holder.run_id), template, TOKEN)
            journal.leased(holder, template, TOKEN, minted)
            journal.revoked(holder, template, minted, "ended")

        await Walk(books, act=act).go()
        _, leased, revoked = [conforming(one) for one in books.records() if one["type"].startswith("credential.")]
        assert (leased["body"]["kind"], revoked["body"]["kind"], leased["body"]["serial"]) == (kind, kind, "39:dd:2e")
        assert books.verify().ok
    assert login.password.encode() not in content(tmp_path)


async def test_the_next_process_finds_what_was_left_open(tmp_path: Path) -> None:
    """Tokens without an end, not too old, with their accessors; the process itself has no leftovers."""
    clock = StepClock()
    async with open_journal(tmp_path, clock) as (books, journal):
        await walk(books, journal)
        await journal.opened(Holder(), WRITE, MintingToken("accessor-2", "s.other-secret", 30, "r"))
        await journal.opened(Holder(), WRITE, MintingToken("accessor-3", "s.third-secret", 30, "r"))
        journal.closed(Holder(), WRITE.name, "accessor-3", "idle")
        assert not await journal.leftovers(0)
    clock.advance(3600)
    async with open_journal(tmp_path, clock) as (books, journal):
        found = await journal.leftovers(clock.now_us() - DAY_US)
        assert [(left.accessor, left.template) for left in found] == [
            ("accessor-1", "erp-read"),
            ("accessor-2", "erp-write"),
        ]
        assert not await journal.leftovers(clock.now_us())
        for left in found:
            journal.swept(left)
        assert not await journal.leftovers(0)
        await books.ledger.append(())
        assert [record["body"]["cause"] for record in books.records("credential.revoked")][-2:] == ["swept", "swept"]
    async with open_journal(tmp_path, clock) as (books, journal):
        assert not await journal.leftovers(0)
        assert books.verify().ok


async def test_an_accessor_whose_key_was_destroyed_is_said_to_be_unknown(tmp_path: Path) -> None:
    """Its data key is gone: the token has to end by itself."""
    async with open_journal(tmp_path) as (books, journal):
        await walk(books, journal)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db, db:
        db.execute("delete from deks")
    async with open_journal(tmp_path) as (_, journal):
        assert [left.accessor for left in await journal.leftovers(0)] == [None]


@pytest.mark.parametrize("kind", ["credential.leased", "credential.revoked"])
async def test_an_edited_or_deleted_record_is_found(tmp_path: Path, kind: str) -> None:
    """The journal is as tamper-evident as the rest of the log."""
    async with open_journal(tmp_path) as (books, journal):
        await walk(books, journal)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db, db:
        (index, leaf) = db.execute("select idx, leaf from records where type = ? limit 1", (kind,)).fetchone()
        db.execute("update records set leaf = ? where idx = ?", (leaf.replace(b"erp-read", b"erp-rEad"), index))
    assert check(tmp_path).findings[0].index == index
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db, db:
        db.execute("delete from records where idx = ?", (index,))
    assert any("missing" in finding.problem for finding in check(tmp_path).findings)


async def test_a_token_that_cannot_be_journalled_is_unavailable(tmp_path: Path) -> None:
    """The log is closed: whoever opened a token hears of it; an end is owed and nobody is held up."""
    async with open_journal(tmp_path) as (_, journal):
        pass
    with pytest.raises(Unavailable):
        await journal.opened(Holder(), READ, TOKEN)
    journal.revoked(Holder(), READ, MINTED, "ended")
