"""Sessions of the handshake era: who opened one, where, and in which revision.

An id is random and good for its principal only; anybody else learns no more than that it does not exist. The table is
bounded, over all and for each principal; where it is full, who has the most makes room, all agents of a user together,
so nobody can push out another's sessions by opening their own. A lost session costs the client one new handshake.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from gateway.core.flow import NotAnswered, Wants
from gateway.core.mcpwire.jsonrpc import Failure, Response
from gateway.core.ports import Clock
from gateway.edge.disconnect import Waiting
from gateway.edge.faults import SessionNotFound
from gateway.edge.mcp.following import Follows

IDLE_S = 1800.0
_ID_BYTES = 24
_PAUSE_S = 1.0


@dataclass(slots=True)
class Session:
    """One MCP session.

    Attributes:
        id: ``Mcp-Session-Id``.
        owner: ``Principal.key`` of who opened it.
        server: endpoint it was opened at; None = the aggregate.
        client: what the client said of itself at ``initialize``.
        used: when it was last used, monotonic seconds.
        askable: what its client can be asked, as of ``asking.declared``.
        level: the least severe log messages the client asked for; None = it has not.
        wants: what it hears of a call that names no progress token; None = nobody asked since it said something new.
        calls: those that are under way; a client names them by ids of its own, which are good within its session.
        follows: the resources that its client hears of.
        waiting: the answers that are waited for; only the session's own client can bring them.
    """

    id: str
    owner: str
    server: str | None
    client: Mapping[str, str]
    used: float
    askable: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    level: str | None = None
    wants: Wants | None = None
    calls: Waiting = field(default_factory=Waiting)
    follows: Follows = field(default_factory=Follows)
    waiting: "set[asyncio.Future[Response | Failure]]" = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.follows.is_over

    def end(self) -> None:
        """It has ended: nothing is followed in it, and nothing that was asked in it can be answered any more."""
        self.follows.end()
        for answer in self.waiting:
            if not answer.done():
                answer.set_exception(NotAnswered("gone"))


class Sessions:
    """The open sessions of this process."""

    def __init__(self, clock: Clock, most: int = 10_000, most_each: int = 100) -> None:
        """``most`` sessions at a time, ``most_each`` for one principal."""
        self._clock = clock
        self._most = most
        self._most_each = most_each
        self._all: OrderedDict[str, Session] = OrderedDict()
        self._own: dict[str, OrderedDict[str, Session]] = {}
        self._of_user: Counter[str] = Counter()
        self._sweep: asyncio.TimerHandle | None = None
        self._idle_from = inf

    def open(self, owner: str, server: str | None, client: Mapping[str, str]) -> Session:
        """A new session; where there is no room, the one ends that was idle longest of the user who has the most."""
        now = self._clock.monotonic()
        self._end_idle(now)
        own = self._own.get(owner)
        if own is not None and len(own) >= self._most_each:
            self._forget(next(iter(own.values())))
        elif len(self._all) >= self._most:
            self._forget(self._spared())
        session = Session(self._clock.random(_ID_BYTES).hex(), owner, server, client, now)
        self._idle_from = min(self._idle_from, now + IDLE_S)
        self._all[session.id] = session
        self._own.setdefault(owner, OrderedDict())[session.id] = session
        self._of_user[user_of(owner)] += 1
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_S, self._swept)
        return session

    def find(self, session_id: str, owner: str, server: str | None) -> Session:
        """The owner's session at this endpoint.

        Raises:
            SessionNotFound: unknown, idle too long, another principal's or another endpoint's.
        """
        now = self._clock.monotonic()
        if now > self._idle_from:
            self._end_idle(now)
        session = self._all.get(session_id)
        if session is None or session.owner != owner or session.server != server:
            raise SessionNotFound("no such session; initialize again")
        session.used = now
        self._all.move_to_end(session_id)
        self._own[owner].move_to_end(session_id)
        return session

    def use(self, session: Session | None) -> None:
        """Whoever has it goes on using it; nothing where there is none.

        Raises:
            SessionNotFound: it has ended meanwhile.
        """
        if session is not None:
            self.find(session.id, session.owner, session.server)

    def end(self, session: Session) -> None:
        """Forget it."""
        self._forget(session)

    def _swept(self) -> None:
        # What an abandoned one follows holds a stream upstream, also where nobody sends anything any more.
        now, self._sweep = self._clock.monotonic(), None
        self._end_idle(now)
        if self._all:
            left = IDLE_S - (now - next(iter(self._all.values())).used)
            self._sweep = asyncio.get_running_loop().call_later(max(left, _PAUSE_S), self._swept)

    def _end_idle(self, now: float) -> None:
        # None is idle before the time that is kept here: whichever is used later only moves it on.
        self._idle_from = inf
        while self._all:
            oldest = next(iter(self._all.values()))
            if now - oldest.used <= IDLE_S:
                self._idle_from = oldest.used + IDLE_S
                return
            self._forget(oldest)

    def _spared(self) -> Session:
        most = max(self._of_user.values())
        return next(one for one in self._all.values() if self._of_user[user_of(one.owner)] == most)

    def _forget(self, session: Session) -> None:
        session.end()
        if self._all.pop(session.id, None) is None:
            return
        own, user = self._own[session.owner], user_of(session.owner)
        del own[session.id]
        if not own:
            del self._own[session.owner]
        self._of_user[user] -= 1
        if not self._of_user[user]:
            del self._of_user[user]


def user_of(owner: str) -> str:
    """The user behind a ``Principal.key``, by who vouches for them; they may have any number of agents.

    No principal's key: these have the agent behind a second bar.
    """
    return owner.rpartition("|")[0]
