"""Hands keys over to the other gateways on a log: announced in the log, laid in a vault, taken, agreed upon, cleared.

What a gateway does follows from the records alone, once a second: so it may be killed at any step, and its next start,
or another gateway, goes on from there. A key comes into force by a record that is refused while any gateway that lives
does not have it.
"""

import asyncio
import logging
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import replace

from anyio import CancelScope, move_on_after
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.adapters.ledger.books.rotating import Others
from gateway.adapters.ledger.books.rotations import Books
from gateway.adapters.ledger.books.shared_log_key import SharedLogKey
from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.drafting import Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.keyring.ring import KeyMissing
from gateway.adapters.ledger.keyring.sealing import NONCE_SIZE
from gateway.adapters.ledger.rounds import Rounds, Tended
from gateway.adapters.ledger.storage.share_records import NOT_TAKEN, shares_of
from gateway.core.errors import Conflict, GatewayError, Unavailable
from gateway.core.key_sharing import (
    Handing,
    KeyShelf,
    Share,
    ShareAction,
    SharedKey,
    genuine,
    offer_message,
    offered_body,
    share_body,
)
from gateway.core.records import Draft, EventType
from gateway.core.rotation import KeyKind

_LOG = logging.getLogger("ostiary.rotation")
_ROUND_S = 1.0
_LOOK_S = 0.1
_PATIENCE_S = 20.0
_END_S = 5.0
_HOUR_US = 3_600_000_000
# Who offered it lives and is not at it any more: longer than its patience.
_LOST_US = 120_000_000
LACKING = "key_lacking"


class KeySharing(Tended):
    """Implements ``core.key_sharing.KeyHandover``; an async context manager.

    Failure mode, closed: a key that is not proven to be at every gateway that lives signs nothing anywhere.
    """

    def __init__(self, books: Books, others: Others, shelf: KeyShelf, keep_h: int) -> None:
        """``keep_h``: how long the vault's copy stays for gateways that are down, hours; 0 = not."""
        self._books = books
        self._keys = books.scribe.keys
        self._clock = books.scribe.clock
        self._others = others
        self._shelf = shelf
        self._keep_us = keep_h * _HOUR_US
        self._holders: dict[KeyKind, SharedKey] = {}
        self._mine: set[bytes] = set()
        self._odd: set[bytes] = set()
        self._in_force: dict[KeyKind, bytes] = {}
        self._turn = asyncio.Lock()
        self._rounds = Rounds(self.look, _ROUND_S, "keys that gateways have in common could not be looked after")

    def hold(self, holders: Iterable[SharedKey]) -> None:
        """Look after these kinds of keys."""
        self._holders = {holder.kind: holder for holder in holders}

    async def _begin(self) -> None:
        """Take and put in force what came while this gateway was down.

        Raises:
            Unavailable: a key that is in force is not here; what to copy.
        """
        try:
            await self.look()
        except GatewayError as error:
            if error.cause_code == LACKING:
                raise
            _LOG.warning("keys that are handed over could not be taken yet: %s", error.detail)
        await super()._begin()

    async def is_open(self, kind: KeyKind, public: bytes) -> bool:
        """See ``core.key_sharing.KeyHandover``."""
        shares = await self._books.reader.ask(shares_of)
        return any(one.name == (kind, public) and one.state is not ShareAction.WITHDRAWN for one in shares)

    async def hand_over(self, key: Handing) -> None:
        """Offer, lay down, wait, agree; see ``core.key_sharing.KeyHandover``."""
        await self.look()  # what an earlier one left is withdrawn, or this one is refused
        offer = replace(key.offer, signature=key.sign(offer_message(self._keys.name.text, key.offer)))
        self._mine.add(offer.public)
        try:
            await self._books.ledger.append([self._draft(offered_body(offer, self._replica))])
            try:
                await self._holders[offer.kind].take(key.private)
                await self._shelf.put(offer.public, seal(self._keys, key.private, offer.public))
                await self._agree(replace(key, offer=offer))
            # Also where this gateway is stopped: nobody is left waiting for it.
            except BaseException:
                with CancelScope(shield=True):
                    was_withdrawn = await self._give_up(Share(offer, self._replica, 0))
                if was_withdrawn:
                    raise
        finally:
            self._mine.discard(offer.public)
        try:
            await self.look()
        except GatewayError as error:  # it is agreed upon: the rounds put it in force, here as elsewhere
            _LOG.warning("a key that was agreed upon is not in force here yet: %s", error.detail)

    async def look(self) -> None:
        """Do what the records say is to be done here; all of it is tried, and the first failure raised.

        Raises:
            Unavailable: some of it could not be done.
        """
        async with self._turn:
            failures = list[GatewayError]()
            shares = await self._books.reader.ask(shares_of)
            for holder in self._holders.values():
                own = [share for share in shares if share.offer.kind is holder.kind]
                for step in (self._taken, self._followed, self._dropped):
                    try:
                        await step(holder, own)
                    except GatewayError as error:
                        failures.append(error)
            try:
                if any(not share.is_cleared for share in shares):
                    await self._tidy(shares)
            except GatewayError as error:
                failures.append(error)
            # What keeps this gateway from its work is said before what does not.
            for failure in sorted(failures, key=lambda one: one.cause_code != LACKING):
                raise failure

    async def _taken(self, holder: SharedKey, shares: Sequence[Share]) -> None:
        known = self._genuine(holder, shares)
        for share in known:
            if share.state is ShareAction.WITHDRAWN:
                continue
            if share.state is ShareAction.OFFERED:
                # There is one place for the next key: what is agreed upon or withdrawn leaves it first, or is lost.
                await self._followed(holder, shares)
                await self._dropped(holder, shares)
            if _is_needed(holder, share, known) and not holder.has(share.offer.public):
                private = await fetched(self._shelf, self._keys, share.offer.public)
                if private is None and share.state is ShareAction.OFFERED:
                    continue  # it is on its way there
                if private is None:
                    raise lacking(holder.copying(share.offer.public))
                await holder.take(private)
            if self._replica not in share.taken and not share.is_cleared and holder.has(share.offer.public):
                await self._say(ShareAction.TAKEN, share)

    async def _followed(self, holder: SharedKey, shares: Sequence[Share]) -> None:
        agreed = [share for share in self._genuine(holder, shares) if share.state is ShareAction.AGREED]
        newest = agreed[-1].offer.public if agreed else None
        if newest is not None and self._in_force.get(holder.kind) != newest:
            await holder.follow(agreed)
            if holder.has(newest):
                self._in_force[holder.kind] = newest

    async def _dropped(self, holder: SharedKey, shares: Sequence[Share]) -> None:
        for share in shares:
            if share.state is ShareAction.WITHDRAWN and holder.has(share.offer.public):
                await holder.drop(share.offer.public)

    def _genuine(self, holder: SharedKey, shares: Sequence[Share]) -> tuple[Share, ...]:
        found = genuine(shares, self._keys.name.text, holder.roots())
        # What is over is nobody's to take: of issuer's keys the ones that signed for it are forgotten by then.
        newest = [share for share in shares if share.state is ShareAction.AGREED][-1:]
        open_ = [share for share in shares if share.state is ShareAction.OFFERED] + newest
        here = {share.offer.public for share in found}
        strange = {share.offer.public for share in open_ if not holder.has(share.offer.public)} - here
        for public in strange - self._odd:
            _LOG.error(
                "a key of the kind %s is offered in the log and no key that is known here signed for it (%s): it is "
                "not taken",
                holder.kind,
                public.hex(),
            )
        self._odd |= strange
        return found

    async def _agree(self, key: Handing) -> None:
        agreed = self._draft(share_body(ShareAction.AGREED, key.offer, self._replica))
        until = self._clock.monotonic() + _PATIENCE_S
        while True:
            shares = await self._books.reader.ask(shares_of)
            has = next((one.taken for one in shares if one.offer.public == key.offer.public), frozenset[str]())
            missing = sorted(await self._others() - has)
            if not missing:
                try:
                    await self._books.ledger.append([*key.drafts, agreed])
                except Conflict as error:  # another one came to live meanwhile
                    if error.cause_code != NOT_TAKEN:
                        raise
                else:
                    return
            if self._clock.monotonic() > until:
                names = ", ".join(missing) or "one that has just started"
                raise Unavailable(
                    f"the key was not replaced, as other gateways on this log did not take it: {names}; each needs "
                    "[rotation] shared_keys and the vault",
                    cause_code=NOT_TAKEN,
                )
            await asyncio.sleep(_LOOK_S)

    async def _give_up(self, share: Share) -> bool:
        # Whether it is not in force. What cannot be done now is done by the rounds, here or elsewhere.
        with move_on_after(_END_S):
            try:
                await self._say(ShareAction.WITHDRAWN, share)
                await self._clear(share)
            except Conflict:  # it was agreed upon after all: that commit was reported as failed
                return not await self._is_agreed(share)
            except GatewayError as error:
                _LOG.warning("a key that was offered could not be withdrawn yet: %s", error.detail)
        return True

    async def _is_agreed(self, share: Share) -> bool:
        shares = await self._books.reader.ask(shares_of)
        return any(one.name == share.name and one.state is ShareAction.AGREED for one in shares)

    async def _tidy(self, shares: Sequence[Share]) -> None:
        living = await self._others() | {self._replica}
        everybody = await self._books.reader.ask(_everybody)
        for share in shares:
            try:
                if share.state is ShareAction.OFFERED and self._is_lost(share, living):
                    await self._say(ShareAction.WITHDRAWN, share)
                elif not share.is_cleared and self._is_over(share, shares, (living, everybody)):
                    await self._clear(share)
            except Conflict:
                continue  # another gateway was faster

    def _is_lost(self, share: Share, living: frozenset[str]) -> bool:
        if share.by == self._replica:
            return share.offer.public not in self._mine
        return share.by not in living or self._clock.now_us() - share.at_us > _LOST_US

    def _is_over(self, share: Share, shares: Sequence[Share], whose: tuple[frozenset[str], frozenset[str]]) -> bool:
        living, everybody = whose
        if share.state is ShareAction.OFFERED:
            return False
        if not _is_needed(self._holders[share.offer.kind], share, shares):
            return True
        age_us = self._clock.now_us() - share.at_us
        is_late = age_us >= self._keep_us and (living <= share.taken or age_us >= self._keep_us + _HOUR_US)
        return is_late or everybody <= share.taken

    async def _clear(self, share: Share) -> None:
        await self._shelf.clear(share.offer.public)
        await self._say(ShareAction.CLEARED, share)

    async def _say(self, action: ShareAction, share: Share) -> None:
        await self._books.ledger.append([self._draft(share_body(action, share.offer, self._replica))])

    @property
    def _replica(self) -> str:
        return self._books.ledger.replica

    def _draft(self, body: dict[str, object]) -> Draft:
        return self._books.scribe.draft(EventType.ROTATION_SHARED, Subject(), body)


def seal(keys: LogKeys, private: bytes, public: bytes) -> str:
    """A private half as the vault gets it: only gateways on this log can open it, and nobody else can make one."""
    nonce = os.urandom(NONCE_SIZE)
    return b64encode(nonce + AESGCM(keys.share_key).encrypt(nonce, private, public)).decode()


async def fetched(shelf: KeyShelf, keys: LogKeys, public: bytes) -> bytes | None:
    """The private half of ``public`` out of the vault; None = it has none.

    Raises:
        Unavailable: the vault is not there, or what it has is something else.
    """
    sealed = await shelf.get(public)
    if sealed is None:
        return None
    try:
        content = b64decode(sealed, validate=True)
        private = AESGCM(keys.share_key).decrypt(content[:NONCE_SIZE], content[NONCE_SIZE:], public)
        key = Ed25519PrivateKey.from_private_bytes(private)
    except (InvalidTag, ValueError):
        raise _forged(public) from None
    if key.public_key().public_bytes_raw() != public:
        raise _forged(public)
    return private


async def restore(shelf: KeyShelf, keys: LogKeys, missing: KeyMissing) -> None:
    """Put a key that came into force while this gateway was down into its folder.

    Raises:
        Unavailable: the vault is not there, or has no copy any more: what to copy.
    """
    private = await fetched(shelf, keys, missing.key.raw)
    if private is None:
        raise lacking(missing.name)
    await SharedLogKey(keys.ring).take(private)


def lacking(name: str) -> Unavailable:
    """A key in force is neither here nor in the vault any more; ``name``: what to copy."""
    return Unavailable(
        f"a key was replaced while this gateway was down, and the vault has no copy any more: copy {name} from the "
        "folder keys of another gateway on this log",
        cause_code=LACKING,
    )


def _forged(public: bytes) -> Unavailable:
    return Unavailable(
        f"what the vault has for the key {public.hex()[:8]} was not put there by a gateway on this log: it is not used",
        cause_code="key_forged",
    )


def _is_needed(holder: SharedKey, share: Share, shares: Sequence[Share]) -> bool:
    if share.state is not ShareAction.AGREED:
        return share.state is ShareAction.OFFERED
    agreed = [one for one in shares if one.offer.kind is holder.kind and one.state is ShareAction.AGREED]
    return holder.needs(share, is_newest=share is agreed[-1])


def _everybody(db: Database) -> frozenset[str]:
    return frozenset(name for (name,) in db.execute("select id from replicas"))
