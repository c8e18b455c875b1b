"""Answers of the engine, kept while the bundle that gave them is served.

Two questions about one caller, run and tool differ in few facts. Where no package that has a say can read those
(``routing.py``), the answer to the one is the answer to the other: no bundle is served that reads the world or chance.

Of listing questions only the word that a tool which exists may be known of is kept. Hidden tools, and names of no tool,
are asked about each time: were either remembered, how fast an answer comes would tell the one from the other.
"""

import hashlib
from collections import OrderedDict
from functools import lru_cache
from typing import NamedTuple

import msgspec

from gateway.adapters.rego.frames import Verdict
from gateway.adapters.rego.routing import Routes
from gateway.core.decision import Evaluation, Phase, grants

_LONGEST = 4096  # within some tens of megabytes all together, whatever callers send
_NONE = msgspec.Raw(b"")


class Key(NamedTuple):
    """What an answer is kept by: the facts that two documents must have in common.

    A name of no tool has one, too, though no answer about it is kept: it costs what a hidden tool costs, to the end.
    """

    phase: Phase
    facts: bytes
    is_tool: bool = True


class _Tool(msgspec.Struct, frozen=True, gc=False):
    digest: str


class _Run(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    id: msgspec.Raw = _NONE
    kind: msgspec.Raw = _NONE
    opened_by: msgspec.Raw = _NONE
    scope: msgspec.Raw = _NONE
    plan: msgspec.Raw = _NONE
    goal: msgspec.Raw = _NONE
    calls: msgspec.Raw = _NONE
    sums: msgspec.Raw = _NONE
    amounts: msgspec.Raw = _NONE


# A member that stands in neither list makes a document unfit: whether it matters is then not known.
class _Document(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    phase: Phase
    tool: msgspec.Raw
    run: _Run = _Run()
    schema: msgspec.Raw = _NONE
    kind: msgspec.Raw = _NONE
    context: msgspec.Raw = _NONE
    principal: msgspec.Raw = _NONE
    agent: msgspec.Raw = _NONE
    on_behalf_of: msgspec.Raw = _NONE
    delegation: msgspec.Raw = _NONE
    time: msgspec.Raw = _NONE
    args: msgspec.Raw = _NONE
    args_digest: msgspec.Raw = _NONE
    approvals: msgspec.Raw = _NONE
    budget: msgspec.Raw = _NONE
    risk: msgspec.Raw = _NONE
    evidence: msgspec.Raw = _NONE


_document = msgspec.json.Decoder(_Document)
_tool = msgspec.json.Decoder(_Tool)


class Memory:
    """The latest answers of one bundle."""

    def __init__(self, routes: Routes, revision: str = "", engine: str = "", *, most: int = 4096) -> None:
        """``most`` answers are kept; ``revision`` and ``engine`` are the ones that gave them."""
        self._holds = lru_cache(maxsize=1024)(routes.holds)
        self._most = most
        self._answers: OrderedDict[Key, Verdict] = OrderedDict()
        self._known: dict[bytes, Evaluation] = {}
        self._revision, self._engine = revision, engine

    def key(self, document: bytes) -> Key | None:
        """What the answer to ``document`` is kept by; None for a document whose answer is not kept."""
        return _usual_key(document) if len(document) <= _LONGEST else _key(document)

    def shared(self, key: Key | None) -> bytes:
        """What a worker may keep parts of its answer to a call by; empty where it may keep none.

        Only of a tool that is known to be there for the caller: were hidden tools answered sooner the second time, they
        could be told from names of no tool.
        """
        if key is None or key.phase is Phase.LIST or Key(Phase.LIST, key.facts) not in self._answers:
            return b""
        return hashlib.blake2b(key.facts, digest_size=16).digest()

    def recall(self, key: Key | None) -> Verdict | None:
        """The answer kept by ``key``."""
        found = None if key is None else self._answers.get(key)
        if found is not None and key is not None:
            self._answers.move_to_end(key)
        return found

    def known(self, about: bytes) -> Evaluation | None:
        """The answer to any call of whom and what the listing question ``about`` is about, where both were kept."""
        return self._known.get(about) or self._both(about)

    def _both(self, about: bytes) -> Evaluation | None:
        # Of hidden tools, and of names of no tool, the key is worked out each time.
        listing = _key(about)
        if listing is None or self.recall(listing) is None:
            return None
        found = self.recall(Key(Phase.CALL, listing.facts))
        if found is None:
            return None
        if len(self._known) >= self._most:
            self._known.clear()
        said = Evaluation((found.result,), (found.fault,), self._revision, self._engine)
        self._known[about] = said
        return said

    def keep(self, key: Key | None, verdict: Verdict) -> None:
        """Keep an answer that holds for every document with this key."""
        if key is None or verdict.fault is not None or verdict.result is None:
            return
        if len(verdict.result) > _LONGEST or not self._holds(key.phase, verdict.idle):
            return
        is_granted = grants(verdict.result)
        if not key.is_tool or (key.phase is Phase.LIST and not is_granted):
            return
        self._answers[key] = verdict
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)


def _key(document: bytes) -> Key | None:
    try:
        found = _document.decode(document)
        is_tool = bool(_tool.decode(found.tool).digest)  # a name of no tool has no digest
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    facts = _facts(found)
    return Key(found.phase, facts, is_tool) if len(facts) <= _LONGEST else None


# The listing question of a call is asked twice: alone, and together with the call.
_usual_key = lru_cache(maxsize=256)(_key)


def _facts(found: _Document) -> bytes:
    # No value of a JSON document holds the byte that stands between them.
    run = found.run
    return b"\0".join(
        (
            found.tool,
            found.principal,
            found.agent,
            found.on_behalf_of,
            found.delegation,
            found.context,
            found.schema,
            found.kind,
            run.id,
            run.kind,
            run.opened_by,
            run.scope,
            run.plan,
            run.goal,
        )
    )
