"""Drafts: records with their id, time and salt, but without their place in the log."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.keyring.pool import Pool
from gateway.core.call import Principal
from gateway.core.ports import Clock
from gateway.core.records import SALT_SIZE, SYSTEM, Actor, Draft, EventType, Payload, identifier

_KNOWN_ACTORS = 4096


class Subject(Struct, frozen=True):
    """Whom a record is about: who acts, in which run, for which call."""

    actor: Actor = SYSTEM
    run_id: str | None = None
    call_id: str | None = None


class Scribe:
    """Makes drafts. Belongs to one thread."""

    def __init__(self, clock: Clock, keys: LogKeys) -> None:
        self.clock = clock
        self.keys = keys
        self._pool = Pool(clock)
        self._actors: dict[tuple[str, str], Actor] = {}

    def actor(self, principal: Principal) -> Actor:
        """The principal as it stands in a leaf: the user by pseudonym only."""
        known = (principal.key, principal.auth_method)
        actor = self._actors.get(known)
        if actor is None:
            if len(self._actors) >= _KNOWN_ACTORS:
                self._actors.clear()
            agent = None if principal.agent is None else identifier(principal.agent)
            user = self.keys.mark("user", f"{principal.issuer}|{principal.user}")
            actor = self._actors[known] = Actor(agent, identifier(principal.auth_method), user)
        return actor

    def draft(
        self,
        kind: EventType,
        subject: Subject,
        body: Mapping[str, Any],
        *payloads: Payload,
        at_us: int | None = None,
        fences: tuple[str, ...] = (),
    ) -> Draft:
        """A record of ``at_us``; None = of now. For ``fences`` see ``Draft``."""
        return Draft(
            self.clock.uuid(),
            kind,
            self.clock.now_us() if at_us is None else at_us,
            self._pool.take(SALT_SIZE),
            subject.actor,
            subject.run_id,
            subject.call_id,
            body,
            payloads,
            fences,
        )
