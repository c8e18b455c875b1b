"""What is stopped, as this process knows it: from the log, and from the moment somebody says so here.

Implements ``KillBook`` of ``adapters/killing.py`` on the log. What was engaged here counts at once, before the disk has
it; what was engaged at another gateway on the same log is looked for several times a second, and once more before a
minted credential is handed out. Whatever happens in between, the writer refuses the intent (``kill_records.admit``).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import msgspec

from gateway.adapters.ledger.books.alone import alone
from gateway.adapters.ledger.books.reviewers import ReviewerRegistry
from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.handing import Durable
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.rounds import Rounds, Tended
from gateway.adapters.ledger.sections import Turns
from gateway.adapters.ledger.storage import kill_records
from gateway.adapters.ledger.storage.places import Places
from gateway.core.api_keys import AUTH_METHOD
from gateway.core.approval import Reviewer
from gateway.core.call import Principal
from gateway.core.canonical import encode
from gateway.core.errors import Forbidden, NotFound
from gateway.core.kills import Cut, Kill, Kind, Target, folded
from gateway.core.leasing import Holder
from gateway.core.ports import Clock
from gateway.core.records import SYSTEM, Draft, EventType, Payload, Role, identifier

# Others hear of a kill within this, and it must take effect everywhere within a second.
_LOOK_S = 0.15
# What was seen longer ago is looked at again before anybody relies on it.
_STALE_S = 1.0
_TURN = "kills"
_MOST_SHOWN = 1000
_OWN_TOKEN = "local"  # noqa: S105 - how somebody came who has a token of this gateway's own issuer


class KillRegistry(Tended):
    """The kills of the log; an async context manager.

    Failure mode, closed: what is stopped elsewhere and cannot be read is ``Unavailable``.
    """

    def __init__(self, ledger: Ledger, reader: LogReader, keys: LogKeys, clock: Clock, quorum: int) -> None:
        """``quorum``: how many different persons must ask for a kill to be lifted."""
        self._ledger = ledger
        self._reader = reader
        self._keys = keys
        self._clock = clock
        self._scribe = Scribe(clock, keys)
        self._marks = kill_records.Marks(keys)
        self.quorum = quorum
        self._places: Places | None = None
        self._reviewers: ReviewerRegistry | None = None
        self._voiceless = frozenset({AUTH_METHOD})
        self._known: dict[str, Kill] = {}
        self._by_mark: dict[str, Kill] = {}
        self._seen = -1
        self._looked_at = 0.0
        self._turns = Turns()
        self._heard: Callable[[Kill], None] = _nobody
        self._rounds = Rounds(self.follow, _LOOK_S, "what other gateways have stopped could not be read")

    def among(self, places: Places | None, reviewers: ReviewerRegistry, *, foreign: bool = False) -> Self:
        """``places``: where several processes write the log; ``reviewers`` tell which accounts are one person's.

        ``foreign``: a foreign issuer vouches for administrators; then tokens of this gateway's own issuer, which any of
        them could make up, lift nothing. API keys never do.
        """
        self._places, self._reviewers = places, reviewers
        self._voiceless = frozenset({AUTH_METHOD, _OWN_TOKEN} if foreign else {AUTH_METHOD})
        return self

    async def _begin(self) -> None:
        await self.follow()
        if self._places is not None:
            await super()._begin()

    def on_kill(self, heard: Callable[[Kill], None]) -> None:
        """Tell ``heard`` of each kill that another gateway has engaged or lifted."""
        self._heard = heard

    def all(self) -> tuple[Kill, ...]:
        """Every kill, oldest first; of the lifted ones the newest thousand."""
        lifted = [kill.id for kill in self._known.values() if kill.lifted_us is not None]
        left_out = set(lifted[:-_MOST_SHOWN])
        return tuple(sorted((k for k in self._known.values() if k.id not in left_out), key=lambda kill: kill.at_us))

    @property
    def stands(self) -> bool:
        """Whether anything at all is stopped, as far as this process knows."""
        return bool(self._by_mark)

    def covering(self, holder: Holder) -> Kill | None:
        """A kill in force that covers ``holder``, as far as this process knows."""
        if not self._by_mark:
            return None
        marks = self._marks.stopping(holder)
        return next((self._by_mark[mark] for mark in marks if mark in self._by_mark), None)

    def covers(self, kill: Kill, holder: Holder) -> bool:
        """Whether ``kill`` is about ``holder``."""
        return kill.mark in self._marks.stopping(holder)

    async def current(self) -> None:
        """Return when this process knows what is stopped, the last moment excepted.

        Raises:
            Unavailable: it cannot know.
        """
        if self._places is not None and self._clock.monotonic() - self._looked_at > _STALE_S:
            await self.follow()

    async def fresh(self) -> None:
        """Return when this process knows what is stopped at this moment.

        Raises:
            Unavailable: it cannot know.
        """
        if self._places is not None:
            await self.follow()

    async def follow(self) -> None:
        """Take over what the log says since the last look.

        Raises:
            Unavailable: it cannot be read.
        """
        async with self._turns.hold("follow"):
            began, news = self._clock.monotonic(), list[str]()
            for index, record, said in await self._reader.ask(self._read):
                self._seen = max(self._seen, index)
                news += self._take(record, said)
            self._looked_at = began
            self._renew()
            for kill_id in dict.fromkeys(news):
                self._heard(self._known[kill_id])

    def engage(self, by: Principal, target: Target, name: str, reason: str) -> tuple[Kill, Durable]:
        """A kill that counts at this gateway from now on, and the future that says whether the log has it.

        Where it cannot be written the log owes it: it is written as soon as it can be, and counts until then.
        """
        mark = self._marks.of(target)
        is_id = target.kind in {Kind.AGENT, Kind.TOOL, Kind.RUN}
        body = {"kind": str(target.kind), "mark": mark, "name": identifier(target.name) if is_id else None}
        said = {"by": by.user, "name": name, "reason": reason}
        draft = self._draft(EventType.KILL_ENGAGED, by, body, said)
        kill = Kill(draft.id, target.kind, mark, draft.at_us, name, reason, by.user)
        self._known[kill.id] = kill
        self._renew()
        durable = self._ledger.submit([draft])
        durable.add_done_callback(lambda done: self._owe(done, draft))
        return kill, durable

    async def lift(self, by: Principal, kill_id: str, reason: str) -> Kill:
        """One person's voice; see ``core.kills.KillDesk``."""
        async with alone(_TURN, self._turns, self._places, self.follow):
            kill = self._known.get(kill_id)
            if kill is None or kill.lifted_us is not None:
                raise NotFound("no such kill is in force", cause_code="kill")
            self._check_voice(by)
            voter = self._voter(by)
            votes = len(kill.voters | {voter})
            asked = {"kill": kill_id, "needed": self.quorum, "voter": voter, "votes": votes}
            drafts = [self._draft(EventType.KILL_LIFT_ASKED, by, asked, {"by": by.user, "reason": reason})]
            if votes >= self.quorum:
                lifted = {"kill": kill_id, "needed": self.quorum, "votes": votes}
                drafts.append(self._scribe.draft(EventType.KILL_LIFTED, Subject(drafts[0].actor), lifted))
            await self._ledger.append(drafts)
            for draft in drafts:
                self._take({"type": draft.type, "body": draft.body, "ts": draft.at_us, "id": draft.id}, None)
            self._renew()
            return self._known[kill_id]

    def carried_out(self, kill: Kill, cut: Cut) -> None:
        """What this gateway did, for the log; nobody waits for it."""
        body = {
            "calls": cut.calls,
            "ended": cut.ended,
            "kill": kill.id,
            "not_ended": cut.not_ended,
            "running": cut.running,
            "unverifiable": cut.unverifiable,
        }
        draft = self._scribe.draft(EventType.KILL_CARRIED_OUT, Subject(SYSTEM), body)
        if self._places is None:
            self._take({"type": draft.type, "body": body, "ts": draft.at_us, "id": draft.id}, None)
        self._ledger.submit([draft]).add_done_callback(lambda done: self._owe(done, draft))

    def _check_voice(self, by: Principal) -> None:
        if by.auth_method in self._voiceless:
            detail = "one administrator could make up many such accounts: come as a person, with a token of your issuer"
            raise Forbidden(detail, cause_code="kill_voice")
        same = {reviewer.person for reviewer in self._holders(by)}
        accounts = {user for one in self._enrolled() if one.person in same for _, user in one.accounts} | {by.user}
        marks = [self._marks.of(Target(Kind.USER, folded(user))) for user in accounts]
        if any(mark in self._by_mark for mark in marks):
            raise Forbidden("who is stopped does not say when that ends", cause_code="kill_own")

    def _enrolled(self) -> tuple[Reviewer, ...]:
        # A key that was revoked tells whose an account is as ever; they could have revoked it themselves.
        known = () if self._reviewers is None else self._reviewers.all()
        return tuple(sorted(known, key=lambda reviewer: reviewer.revoked))

    def _holders(self, by: Principal) -> list[Reviewer]:
        return [one for one in self._enrolled() if (by.issuer, by.user) in one.accounts]

    def _voter(self, by: Principal) -> str:
        # Two accounts of one person are one voice, as far as reviewers are enrolled with their accounts.
        holders = self._holders(by)
        if holders:
            return self._keys.mark("person", holders[0].person)
        return self._keys.mark("user", f"{by.issuer}|{by.user}")

    def _owe(self, done: Durable, draft: Draft) -> None:
        if done.exception() is not None:
            self._ledger.owe([draft])

    def _draft(self, kind: EventType, by: Principal, body: Mapping[str, Any], said: Mapping[str, Any]) -> Draft:
        return self._scribe.draft(kind, Subject(self._scribe.actor(by)), body, Payload(Role.CHANGE, encode(dict(said))))

    def _read(self, db: Database) -> list[tuple[int, dict[str, Any], bytes | None]]:
        rows = kill_records.records(db, self._seen)
        return [(index, record, self._reader.sealed(db, index, record, Role.CHANGE)) for index, record in rows]

    def _take(self, record: Mapping[str, Any], said: bytes | None) -> list[str]:
        # The ids of kills that are in force or not by this record, which were not so before.
        body = record["body"]
        if record["type"] == EventType.KILL_ENGAGED:
            return self._engaged(record, said)
        kill = self._known.get(body["kill"])
        if kill is None:
            return []
        if record["type"] == EventType.KILL_LIFT_ASKED:
            kill = replace(kill, voters=kill.voters | {body["voter"]})
        elif record["type"] == EventType.KILL_LIFTED:
            kill = replace(kill, lifted_us=record["ts"])
        else:
            counts = ("calls", "running", "ended", "not_ended", "unverifiable")
            kill = replace(kill, cut=kill.cut + Cut(*(body[count] for count in counts)))
        self._known[kill.id] = kill
        return [kill.id] if record["type"] == EventType.KILL_LIFTED else []

    def _engaged(self, record: Mapping[str, Any], said: bytes | None) -> list[str]:
        if record["id"] in self._known:
            return []
        words = {} if said is None else msgspec.json.decode(said)
        body = record["body"]
        name = words.get("name", body["name"])
        kill = Kill(
            record["id"], Kind(body["kind"]), body["mark"], record["ts"], name, words.get("reason"), words.get("by")
        )
        self._known[kill.id] = kill
        return [kill.id]

    def _renew(self) -> None:
        self._by_mark = {kill.mark: kill for kill in self._known.values() if kill.lifted_us is None}


def _nobody(kill: Kill) -> None:
    """Nobody listens yet."""
