"""The sessions with one upstream, one for each credential and caller, and how they come to be: era and revision.

What a server keeps in a session (what was looked at, a page that is open) is one caller's and must not be shown to the
next, also where both are served with the same lasting credential.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from anyio import CancelScope, Lock, fail_after, move_on_after

from connectors.mcp.declining import declined
from connectors.mcp.dialect import Client, Dialect, handshake_dialect, is_no_verdict, stateless_dialect
from connectors.mcp.exchange import Endpoint
from connectors.mcp.faults import Fault, Lost, Refused, Unprepared
from connectors.mcp.messages import Post, Question, header_fields
from connectors.mcp.session import SETUP_RESULT_BYTES, Ask, Session
from gateway.core.call import Lease
from gateway.core.mcpwire import eras
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.jsonrpc import Request, encode, encode_notification, encode_request

_SESSION_ID_MAX: Final = 1024
_CLOSING_S: Final = 2.0
# What sessions are kept by: the caller, the credential's header fields, and what callers can be asked, where the
# session says it. It holds the credential no longer than the session does.
Key = tuple[str, tuple[tuple[str, str], ...], bytes]
_FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


class Identity(msgspec.Struct, frozen=True):
    """Whose a session is.

    Attributes:
        credential: header fields of it.
        whose: the caller; empty = the gateway's own, for discovery and pings.
        askable: what its callers can be asked during a call. In the handshake era the session says it, so that callers
            who can be asked other things do not share one; in the stateless era each request does.
    """

    credential: Mapping[str, str]
    whose: str = ""
    askable: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Identity({self.whose!r})"  # a credential is never shown

    @property
    def user(self) -> str:
        """The user among ``whose``: with all agents, and all that act for these, they are one."""
        return "|".join(self.whose.split("|")[:2])

    def key(self, dialect: Dialect | None) -> Key:
        """What sessions are kept by."""
        fields = tuple(self.credential.items())  # as it is written: one credential is written alike in all calls
        is_told = self.askable and not (dialect is not None and dialect.stateless)
        return self.whose, fields, encode(self.askable) if is_told else b""


def whose(lease: Lease) -> str:
    """The caller that a session, or a process, is kept for: nobody else's calls are served there."""
    principal = lease.intent.quota.permit.target.caller.principal
    return "|".join((principal.key, *principal.delegation))


class Sessions:
    """Sessions by credential and caller; the era is found once and kept until the upstream proves it wrong.

    Args:
        endpoint: the upstream.
        client: what the gateway says of itself.
        most: sessions kept at a time.
    """

    def __init__(self, endpoint: Endpoint, client: Client, most: int) -> None:
        self._endpoint = endpoint
        self._client = client
        self._most = most
        self._dialect: Dialect | None = None
        self._kept: OrderedDict[Key, Session] = OrderedDict()
        self._opening: dict[Key, Lock] = {}

    @property
    def era(self) -> Era | None:
        """The upstream's era, None while it is not known."""
        return None if self._dialect is None else self._dialect.era

    async def get(self, whose: Identity, budget_s: float, idle_s: float = math.inf) -> Session:
        """Their session, opened now if there is none; one unused for ``idle_s`` seconds is tried first.

        Raises:
            Unprepared: there is none to be had within ``budget_s`` seconds.
        """
        key = whose.key(self._dialect)
        session = self._kept.get(key)
        if session is not None and not session.is_doubtful(idle_s):
            self._kept.move_to_end(key)
            return session
        try:
            with fail_after(budget_s):
                if session is not None:
                    await self._try(session, budget_s)
                session = await self._opened(key, whose, budget_s)
        except TimeoutError:
            raise Unprepared("setup_timeout") from None
        except Fault as fault:
            raise Unprepared(fault.cause) from fault
        session.users += 1  # by the call that it was looked up for, which is not to find it ended
        try:
            await self._shrink()
        finally:
            session.users -= 1
        return session

    def learn(self, session: object, refusal: Refused) -> None:
        """Forget what a refusal shows to be wrong; the next call finds it out afresh.

        A refusal that does not name our request comes from a door before the MCP layer: the session ended, or the
        server was replaced by one of the other era.
        """
        if refusal.code == eras.UNSUPPORTED_VERSION or (not refusal.addressed and refusal.status in {400, 404, 405}):
            self._dialect = None
            self.forget(session)
        elif refusal.status == 404 and refusal.code != eras.METHOD_NOT_FOUND:  # noqa: PLR2004 -- HTTP
            # Some servers name the request even where it is the session that they do not know.
            self.forget(session)

    async def leave(self, credential: Mapping[str, str], whose: str) -> None:
        """A call with a passing credential is over: end its session, unless another call is using the same value."""
        own = Identity(credential, whose).key(None)[:2]
        for key in [key for key in self._kept if key[:2] == own]:
            session = self._kept.get(key)
            if session is not None and not session.users:
                del self._kept[key]
                with CancelScope(shield=True):
                    await session.end()

    async def close(self) -> None:
        """End the sessions, as far as the upstream lets us within a moment."""
        sessions, self._kept = list(self._kept.values()), OrderedDict()
        with CancelScope(shield=True), move_on_after(_CLOSING_S):
            for session in sessions:
                await session.end()

    async def _try(self, session: Session, budget_s: float) -> None:
        try:
            with fail_after(budget_s / 2):
                await session.ask(Ask("ping", connect_s=budget_s))
        except TimeoutError:  # the other half is for a new session: one that hangs must not hang every later call
            self.forget(session)
        except Refused as refusal:
            self.learn(session, refusal)
            if session in self._kept.values() and refusal.code != eras.METHOD_NOT_FOUND:
                raise
        except Lost:
            self.forget(session)

    def forget(self, session: object) -> None:
        """Use it for nothing more."""
        for key in [key for key, known in self._kept.items() if known is session]:
            self._kept.pop(key).let_go()

    async def _opened(self, key: Key, whose: Identity, budget_s: float) -> Session:
        # One lock a session: a slow handshake for one caller holds up nobody else.
        lock = self._opening.setdefault(key, Lock())
        try:
            async with lock:
                # Whoever held the lock before may have opened it.
                session = self._kept.get(whose.key(self._dialect))
                if session is None:
                    session = await self._open(_fields(whose.credential), whose.askable, budget_s)
                    session.user = whose.user
                    self._kept[whose.key(session.dialect)] = session
                return session
        finally:
            if not lock.locked():
                self._opening.pop(key, None)

    async def _open(self, credential: str, askable: Mapping[str, Any], budget_s: float) -> Session:
        dialect = self._dialect or await self._probe(credential, budget_s)
        if dialect is not None and dialect.stateless:
            self._dialect = dialect
            return self._stateless(dialect, credential)
        session = await self._initialise(credential, askable, budget_s)
        self._dialect = session.dialect
        return session

    def _stateless(self, dialect: Dialect, credential: str) -> Session:
        return Session(self._endpoint, dialect, credential + header_fields([(eras.VERSION_HEADER, dialect.version)]))

    async def _probe(self, credential: str, budget_s: float) -> Dialect | None:
        ask = Ask("server/discover", connect_s=budget_s)
        try:
            # Half of the time: a server that does not answer what it does not know is still asked the old way.
            with fail_after(budget_s / 2):
                result = await self._discovered(credential, ask)
        except TimeoutError:
            return None
        except Refused as refusal:
            if is_no_verdict(refusal):
                raise
            return None
        return stateless_dialect(self._client, result)

    async def _discovered(self, credential: str, ask: Ask) -> bytes:
        try:
            return await self._stateless(self._client.stateless(), credential).ask(ask)
        except Refused as refusal:
            if refusal.offered is None:
                raise
            offered = self._client.stateless(refusal.offered)
        return await self._stateless(offered, credential).ask(ask)  # once: who refuses its own offer is of no use

    async def _initialise(self, credential: str, askable: Mapping[str, Any], budget_s: float) -> Session:
        request_id = self._endpoint.next_id()
        body = encode_request(request_id, "initialize", self._client.handshake_params(askable))
        early = _Early(self._endpoint, credential)
        question = Question(
            credential, body, budget_s, request_id, SETUP_RESULT_BYTES, early.decline, begun=early.begun
        )
        dialect, session_id = handshake_dialect(await self._endpoint.ask(question)), early.session_id
        own = [] if session_id is None else [(eras.SESSION_HEADER, session_id)]
        if dialect.names_version:
            own.append((eras.VERSION_HEADER, dialect.version))
        fields = credential + header_fields(own)
        session = Session(self._endpoint, dialect, fields, session_id, is_askable=bool(askable))
        ready = Post(session.fields, encode_notification("notifications/initialized"), budget_s)
        status = await self._endpoint.tell(ready)
        if status >= 300:  # noqa: PLR2004 -- HTTP
            raise Refused(f"http_{status}", status=status)
        return session

    async def _shrink(self) -> None:
        # Credentials that live for one call would otherwise pile up sessions. One that is in use stays; of the others
        # who has the most makes room, or a user with many agents would end what others have open.
        while len(self._kept) > self._most:
            having = Counter(session.user for session in self._kept.values())
            idle = [(key, session) for key, session in list(self._kept.items())[:-1] if not session.users]
            if not idle:
                return
            key, _ = max(idle, key=lambda found: having[found[1].user])
            await self._kept.pop(key).end()


@dataclass(slots=True)
class _Early:
    """Answers what a server asks before it has answered the handshake: it may ask whether we are there, nothing else.

    Attributes:
        endpoint: where.
        fields: header fields of a request.
        session_id: what the server names the session; None = it has not begun to answer, or names none.
    """

    endpoint: Endpoint
    fields: str = field(repr=False)
    session_id: str | None = None

    def begun(self, session: str | None) -> None:
        """Name the session from now on."""
        if session is not None:
            self.session_id = _checked(session)
            self.fields += header_fields([(eras.SESSION_HEADER, self.session_id)])

    async def decline(self, request: Request) -> None:
        """Answer a request; whether that arrives changes nothing here."""
        with suppress(Fault), move_on_after(_CLOSING_S):
            await self.endpoint.tell(Post(self.fields, declined(request), _CLOSING_S))


def _fields(credential: Mapping[str, str]) -> str:
    own = {
        "accept": f"{eras.JSON_TYPE}, {eras.STREAM_TYPE}",
        "content-type": eras.JSON_TYPE,
        "accept-encoding": "identity",
    }
    # The protocol's own fields, and those that frame a message, are not the credential's to set.
    fields = {name.lower(): value for name, value in credential.items()}
    taken = own.keys() | _FRAMING
    if any(name in taken or name.startswith("mcp-") or not _is_visible(value) for name, value in fields.items()):
        raise Unprepared("credential_header")
    return header_fields([*own.items(), *fields.items()])


def _is_visible(value: str) -> bool:
    return value.isascii() and value.isprintable()


def _checked(session_id: str) -> str:
    if len(session_id) > _SESSION_ID_MAX or not _is_visible(session_id):
        raise Lost("session_id")
    return session_id
