"""Another signing key for the log, while it is written: added beside the old one, which is retired when its time is up.

A key's file is in place before the record that adds it, and is removed after the record that retires it. Both records
go through the writer like all others, so no call waits for a rotation.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from anyio import to_thread
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.key_files import StateRefused, pem
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.rounds import Rounds, Tended
from gateway.core.call import Principal
from gateway.core.cosigning import TrustPolicy, Witness, policy_over
from gateway.core.errors import Conflict, Unavailable
from gateway.core.key_sharing import Handing, KeyHandover, Offer
from gateway.core.log_keys import Reign, added_body, retired_body
from gateway.core.ports import Clock
from gateway.core.records import SYSTEM, Actor, Draft, EventType
from gateway.core.rotation import KeyKind
from gateway.core.tlog import Signer, VerifierKey

_LOG = logging.getLogger("gateway.ledger")
_HOUR_US = 3_600_000_000
_ROUND_S = 60.0


Others = Callable[[], Awaitable[frozenset[str]]]


async def _nobody() -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What is the same for all keys.

    Attributes:
        overlap_h: how long the old key signs beside a new one, hours.
        witnesses: those that policies name.
        threshold: how many of them are a quorum.
    """

    overlap_h: int = 168
    witnesses: tuple[Witness, ...] = ()
    threshold: int = 0


class KeyRoom:
    """Implements ``core.log_keys.KeyDesk`` on the ledger.

    Failure mode, closed: what cannot be recorded did not happen, and the keys in force go on signing.
    """

    def __init__(self, ledger: Ledger, keys: LogKeys, clock: Clock, terms: KeyTerms, others: Others = _nobody) -> None:
        """``others``: the further processes that write the log, which a new key would have to be given to."""
        self._ledger = ledger
        self._ring = keys.ring
        self._clock = clock
        self._scribe = Scribe(clock, keys)
        self._terms = terms
        self._others = others
        self._handover: KeyHandover | None = None
        self._turn = asyncio.Lock()

    def hand_over_by(self, handover: KeyHandover) -> None:
        """Give new keys to the other gateways this way; until then they are not made while others write."""
        self._handover = handover

    def all(self) -> tuple[Reign, ...]:
        """Every key the log ever had; see ``core.log_keys.KeyDesk``."""
        return self._ring.history.reigns

    def policy(self) -> TrustPolicy:
        """What others may check with; see ``core.log_keys.KeyDesk``."""
        keys = [reign.key for reign in self._ring.history.in_force]
        return policy_over(keys, self._terms.witnesses, self._terms.threshold)

    async def rotate(self, by: Principal) -> Reign:
        """Add a key; see ``core.log_keys.KeyDesk``."""
        return await self._rotate(self._scribe.actor(by))

    async def renew(self) -> Reign:
        """The same by the gateway itself."""
        return await self._rotate(SYSTEM)

    async def _rotate(self, actor: Actor) -> Reign:
        async with self._turn:
            if len(self._ring.history.in_force) > 1:
                raise Conflict("two keys are in force: `ostiary audit keys retire` first", cause_code="log_key")
            if self._handover is None and await self._others():
                # They could not sign: every call of theirs would be refused from this record on.
                raise Conflict(
                    "other gateways write this log: set [rotation] shared_keys, or stop them, rotate, copy the folder "
                    "keys to them, start them again",
                    cause_code="log_key_shared",
                )
            private = Ed25519PrivateKey.generate()
            self._ring.learn(pem(private))
            added = self._added(actor, Signer(self._ring.history.first.name, private).key)
            if self._handover is not None:
                await self._handover.hand_over(self._handing(private, added))
                return self._ring.history.newest
            try:
                await to_thread.run_sync(self._ring.take, private)
            except StateRefused as error:
                raise Unavailable(str(error), cause_code="log_key") from None
            await self._ledger.append([added])
            return self._ring.history.newest

    def _added(self, actor: Actor, key: VerifierKey) -> Draft:
        due_us = self._clock.now_us() + self._terms.overlap_h * _HOUR_US
        body = added_body(self._ring.history.first, self._ring.newest, key, due_us)
        return self._scribe.draft(EventType.KEY, Subject(actor), body)

    def _handing(self, private: Ed25519PrivateKey, added: Draft) -> Handing:
        old = self._ring.newest
        offer = Offer(KeyKind.LOG_KEY, private.public_key().public_bytes_raw(), old.key.raw)
        return Handing(offer, private.private_bytes_raw(), old.raw_sign, (added,))

    async def retire(self, by: Principal) -> Reign:
        """Retire the older key; see ``core.log_keys.KeyDesk``."""
        return await self._retire(self._scribe.actor(by))

    async def retire_due(self) -> Reign | None:
        """Retire the older of two keys where its time is up.

        Raises:
            Unavailable: the log cannot be written.
        """
        newest = self._ring.history.newest
        is_due = newest.retires_us is not None and newest.retires_us <= self._clock.now_us()
        if len(self._ring.history.in_force) == 1 or not is_due:
            return None
        return await self._retire(SYSTEM)

    async def _retire(self, actor: Actor) -> Reign:
        async with self._turn:
            old, *others = self._ring.history.in_force
            if not others:
                raise Conflict("one key is in force: add another one before it is retired", cause_code="log_key")
            await self._ledger.append([self._scribe.draft(EventType.KEY, Subject(actor), retired_body(old.key))])
            await to_thread.run_sync(self._ring.prune)
            return next(reign for reign in self._ring.history.reigns if reign.key == old.key)


class Overlap(Tended):
    """Lets the overlap of two keys end in time, looking once a minute; an async context manager."""

    def __init__(self, room: KeyRoom) -> None:
        self._room = room
        self._rounds = Rounds(self._round, _ROUND_S, "the log's older key could not be retired", at_once=True)

    async def _round(self) -> None:
        retired = await self._room.retire_due()
        if retired is not None:
            _LOG.info("the log's key %s was retired: its overlap is over", retired.key.id.hex())
