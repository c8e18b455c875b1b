"""One conversation of two agents with the gateway: which request is next, by the seed's chance and what was heard."""

import random
from dataclasses import dataclass, field

from deploy.campaigns.rpc_fuzz import faults
from deploy.campaigns.rpc_fuzz.case import AGENTS, Case, Expect, Who
from deploy.campaigns.rpc_fuzz.grammar import ENDPOINTS, Grammar, Session, may_come
from deploy.campaigns.rpc_fuzz.mutation import Mutator

# Shares of requests: good ones, those with a fault, those in a session that is not theirs; the others are mutated.
_ENDED, _GOOD, _FAULTY, _MISPLACED = 0.03, 0.16, 0.56, 0.64
_IN_SESSION, _AT_ONCE, _NOTED = 0.6, 0.25, 0.2


@dataclass(slots=True)
class Author:
    """Writes one conversation.

    Attributes:
        seed: of the campaign.
        number: of the conversation.
    """

    seed: int
    number: int
    grammar: Grammar = field(init=False)
    _mutator: Mutator = field(init=False)
    _open: list[Session] = field(default_factory=list)
    _ended: list[Session] = field(default_factory=list)
    _hellos: list[tuple[Who, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin."""
        name = f"{self.seed}/{self.number}"
        self.grammar = Grammar(random.Random(name), name)  # noqa: S311 - what is sent is no secret
        self._mutator = Mutator(self.grammar)
        # Each agent has a session at the aggregate, and one of them at a server of its own.
        self._hellos = [(who, "/mcp") for who in AGENTS]
        self._hellos.append((Who.AMBER, self.chance.choice([path for path in ENDPOINTS if path != "/mcp"])))

    @property
    def chance(self) -> random.Random:
        """The conversation's."""
        return self.grammar.chance

    def turn(self) -> list[Case]:
        """The requests that are made next, all at once."""
        if self._hellos or self.chance.random() >= _AT_ONCE:
            return [self._next(alone=True)]
        return [self._next(alone=False) for _ in range(self.chance.randrange(2, 5))]

    def heard(self, case: Case, session: str | None) -> None:
        """A session was opened by this request."""
        if session is not None and case.who in AGENTS:
            self._open.append(Session(session, case.who, case.path))

    def _next(self, *, alone: bool) -> Case:
        if self._hellos:
            return self.grammar.hello(*self._hellos.pop()).sealed()
        who, share = self.chance.choice(AGENTS), self.chance.random()
        if _FAULTY <= share < _MISPLACED and (case := self._misplaced(who)) is not None:
            return case
        mine = [one for one in self._open if one.who is who]
        session = self.chance.choice(mine) if mine and self.chance.random() < _IN_SESSION else None
        draft = self.grammar.request(who, session)
        if alone and session is not None and share < _ENDED:
            return self._goodbye(draft.sealed(), session)
        if share < _GOOD:
            return draft.sealed()
        return faults.broken(draft, self.chance) if share < _FAULTY else self._mutator.mutate(draft)

    def _goodbye(self, case: Case, session: Session) -> Case:
        case.verb, case.expect, case.id, case.fault = "DELETE", Expect.ANY, None, "session ended"
        self._open.remove(session)
        self._ended.append(session)
        return case

    def _misplaced(self, who: Who) -> Case | None:
        name = self.chance.choice(faults.SESSION_FAULTS)
        elsewhere = name == "session of another endpoint"
        found = {
            "another's session": [one for one in self._open if one.who is not who],
            "session of another endpoint": [one for one in self._open if one.who is who],
            "ended session": [one for one in self._ended if one.who is who],
            "made-up session": [Session(f"{self.chance.getrandbits(192):048x}", who, "/mcp")],
        }[name]
        if not found:
            return None
        session = self.chance.choice(found)
        paths = [path for path in ENDPOINTS if (path != session.path) is elsewhere and may_come(who, path)]
        if not paths:
            return None
        draft = self.grammar.request(who, Session(session.id, who, self.chance.choice(paths)))
        return faults.misplaced(draft, name, noted=self.chance.random() < _NOTED)
