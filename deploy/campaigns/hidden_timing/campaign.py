"""The eight situations and their pairs: each surface, arguments that fit or do not, a caller with a past or without."""

import contextlib
import itertools
import random
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import httpx

from deploy.campaigns.hidden_timing.doors import Connection, Surface, WrongAnswerError
from deploy.campaigns.hidden_timing.judge import Finding, judge

# Names of one length that no list covers; the first stands in the catalogue.
HIDDEN: Final = "erp.ledger_close"
UNKNOWN: Final = "erp.ledger_clown"
OTHER: Final = "erp.ledger_cloak"
SEEN: Final = "erp.ledger_read"
NAMES: Final = (HIDDEN, UNKNOWN, OTHER)
_GOOD: Final[dict[str, object]] = {"month": "2026-01"}
_BAD: Final[dict[str, object]] = {"month": 5, "more": ["x"]}
_ID: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}")
_SETTLED: Final = 200
# Pairs from one address.
_VISIT: Final = 5
# Nothing here speaks TLS, and loading the system's certificates takes time.
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True, slots=True)
class Situation:
    """In which pairs are taken.

    Attributes:
        surface: how calls come in.
        fits: whether the arguments are those that the hidden tool takes.
        is_known: whether the caller has listed the tools and called one before, or begins a run with each call.
    """

    surface: Surface
    fits: bool
    is_known: bool

    @property
    def label(self) -> str:
        """For the evidence."""
        return (
            f"{self.surface}, {'good' if self.fits else 'bad'} arguments, memory {'warm' if self.is_known else 'cold'}"
        )


SITUATIONS: Final = tuple(Situation(*words) for words in itertools.product(Surface, (True, False), (True, False)))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        url: of the gateway.
        operator: speaks to the admin socket, and issues tokens.
        chance: of the order within a pair.
        pairs: how many in each situation.
        visitors: numbers of addresses nobody has called from before.
    """

    url: str
    operator: httpx.Client
    chance: random.Random
    pairs: int
    visitors: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def token(self) -> str:
        """A new token: a caller without a past, and a run of its own."""
        wish = {"user": "dora", "agent": "clerk", "groups": ["desk"], "scopes": ["tools"], "ttl_s": 7200}
        answer = self.operator.post("/v1/tokens", json=wish)
        answer.raise_for_status()
        return str(answer.json()["token"])

    def find(self, situation: Situation, seed: int) -> Finding:
        """Take the pairs of one situation and judge them.

        Raises:
            WrongAnswerError: a refusal of the hidden tool is not word for word that of a name of no tool.
        """
        times = self._times(situation)
        return judge(*(times[name] for name in NAMES), of=len(SITUATIONS), seed=seed)

    def _times(self, situation: Situation) -> dict[str, list[float]]:
        words: set[tuple[int, bytes]] = set()
        times: dict[str, list[float]] = {name: [] for name in NAMES}
        token = self._acquainted() if situation.is_known else ""
        for at in range(0, _SETTLED + self.pairs, _VISIT):
            # What a caller does whom nobody knows is limited by their address.
            visitor = 0 if situation.is_known else next(self.visitors)
            with contextlib.closing(Connection(self.url, visitor)) as connection:
                for number in range(at, min(at + _VISIT, _SETTLED + self.pairs)):
                    for name in self.chance.sample(NAMES, len(NAMES)):
                        arguments = _GOOD if situation.fits else _BAD
                        answer = connection.ask(
                            connection.request(situation.surface, token or self.token(), name, arguments)
                        )
                        words.add((answer.status, _plain(answer.body, name)))
                        if number >= _SETTLED:
                            times[name].append(answer.seconds * 1e6)
        if len(words) != 1:
            raise WrongAnswerError(f"{situation.label}: refusals differ: {sorted(words)[:3]}")
        return times

    def _acquainted(self) -> str:
        """A token whose holder has listed the tools and called one, three times."""
        token = self.token()
        with httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {token}"}, verify=_NO_TLS) as client:
            for _ in range(3):
                tools = [tool["name"] for tool in client.get("/v1/tools").json()["tools"]]
                if tools != [SEEN] or not client.post(f"/v1/tools/{SEEN}/call", json={"arguments": {}}).is_success:
                    raise WrongAnswerError(f"the gateway is not as the campaign needs it: {tools}")
        return token


def findings(caller: Caller, seed: int) -> Iterator[tuple[Situation, Finding]]:
    """The findings of all situations, in a shuffled order."""
    for situation in caller.chance.sample(SITUATIONS, len(SITUATIONS)):
        yield situation, caller.find(situation, seed)


def _plain(body: bytes, name: str) -> bytes:
    """A refusal without the name that was asked for and without the call's id."""
    for form in (name, name.replace(".", "__")):
        body = body.replace(form.encode(), b"NAME")
    return _ID.sub(b"ID", body)
