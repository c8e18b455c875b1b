"""Keys that all gateways on one log must have, handed over through a vault: how they stand, as the log's records say.

The log says who offers which key, who has it, and from when on it is in force; the private half never passes the
database. It lies sealed in the vault until those who need it have it. An offer is signed by the key before it, so who
can write the database and nothing else can neither slip a key in nor make one last longer.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from gateway.core.canonical import encode
from gateway.core.records import Draft
from gateway.core.rotation import KeyKind
from gateway.core.signing import is_signed

_CONTEXT = b"ostiary.shared-key/v1\n"
_VERSION = 1


class ShareAction(StrEnum):
    """What a ``rotation.shared`` record says of a key."""

    OFFERED = "offered"
    TAKEN = "taken"
    AGREED = "agreed"
    WITHDRAWN = "withdrawn"
    CLEARED = "cleared"


class ShareRefused(ValueError):
    """A record that may not stand where it does: the message says why."""


class NotTaken(ShareRefused):
    """A gateway that lives has not taken the key."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A key that is handed over.

    Attributes:
        public: its public half, 32 bytes.
        predecessor: public half of the key in force before it.
        signature: the predecessor's, over ``offer_message``.
        until_s: until which second what the predecessor signed counts; 0 = other records say so.
    """

    kind: KeyKind
    public: bytes
    predecessor: bytes
    signature: bytes = b""
    until_s: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """How a key that is handed over stands.

    Attributes:
        by: the gateway that made it.
        at_us: when it was offered.
        state: offered, agreed or withdrawn.
        taken: the gateways that have its private half.
        is_cleared: whether the vault has no copy any more.
    """

    offer: Offer
    by: str
    at_us: int
    state: ShareAction = ShareAction.OFFERED
    taken: frozenset[str] = frozenset()
    is_cleared: bool = False

    @property
    def name(self) -> tuple[KeyKind, bytes]:
        """What tells it from others."""
        return self.offer.kind, self.offer.public


def offer_message(log: str, offer: Offer) -> bytes:
    """The bytes that the key in force signs to hand over the next one; ``log``: the first key of the log, as text."""
    word = {
        "v": _VERSION,
        "log": log,
        "kind": str(offer.kind),
        "public": offer.public.hex(),
        "predecessor": offer.predecessor.hex(),
        "until_s": offer.until_s,
    }
    return _CONTEXT + hashlib.sha256(encode(word)).digest()


def offered_body(offer: Offer, replica: str) -> dict[str, Any]:
    """The record of an offer by the gateway ``replica``."""
    said = {"predecessor": offer.predecessor.hex(), "signature": offer.signature.hex(), "until_s": offer.until_s}
    return share_body(ShareAction.OFFERED, offer, replica) | said


def share_body(action: ShareAction, offer: Offer, replica: str) -> dict[str, Any]:
    """The record of what else becomes of it."""
    said = {"action": str(action), "kind": str(offer.kind), "public": offer.public.hex(), "replica": replica}
    return said | {"predecessor": None, "signature": None, "until_s": None}


def standing(records: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[Share, ...]:
    """All keys that were ever offered, oldest first; ``records``: time and body of each record, in the log's order.

    Raises:
        ShareRefused: one cannot be read.
    """
    shares = dict[tuple[KeyKind, bytes], Share]()
    for at_us, body in records:
        action, name = _read(body)
        if action is ShareAction.OFFERED:
            offer = _offer(name, body)
            shares.setdefault(name, Share(offer, str(body["replica"]), at_us, taken=frozenset({str(body["replica"])})))
        elif name in shares:
            shares[name] = _after(shares[name], action, str(body["replica"]))
    return tuple(shares.values())


def admit(shares: Sequence[Share], body: Mapping[str, Any], living: Iterable[str]) -> None:
    """Whether the record may follow; ``living``: the other gateways that write the log.

    Raises:
        NotTaken: the key is agreed upon, and one of them does not have it.
        ShareRefused: it may not.
    """
    action, name = _read(body)
    share = next((one for one in shares if one.name == name), None)
    if action is ShareAction.OFFERED:
        under_way = any(one.offer.kind is name[0] and one.state is ShareAction.OFFERED for one in shares)
        if share is not None or under_way:
            raise ShareRefused("a key of this kind is being handed over already")
        return
    if share is None:
        raise ShareRefused("the key was never offered")
    if action in {ShareAction.AGREED, ShareAction.WITHDRAWN} and share.state is not ShareAction.OFFERED:
        raise ShareRefused(f"the key was {share.state} already")
    if action is ShareAction.CLEARED and (share.is_cleared or share.state is ShareAction.OFFERED):
        raise ShareRefused("the vault's copy is needed, or gone already")
    if action is ShareAction.AGREED:
        check_taken(shares, name, living)


def check_taken(shares: Sequence[Share], name: tuple[KeyKind, bytes], living: Iterable[str]) -> None:
    """Every gateway in ``living`` has the key.

    Raises:
        NotTaken: one has not.
    """
    has = next((one.taken for one in shares if one.name == name), frozenset[str]())
    lacking = sorted(set(living) - has)
    if lacking:
        raise NotTaken(f"other gateways write this log and do not have the key: {', '.join(lacking)}")


def genuine(shares: Sequence[Share], log: str, roots: Iterable[bytes]) -> tuple[Share, ...]:
    """Those that a key known here, or one of these, has signed for; ``roots``: the public keys that are known."""
    known, found = set(roots), list[Share]()
    for share in shares:
        offer = share.offer
        if offer.predecessor in known and is_signed(offer.predecessor, offer.signature, offer_message(log, offer)):
            known.add(offer.public)
            found.append(share)
    return tuple(found)


def _read(body: Mapping[str, Any]) -> tuple[ShareAction, tuple[KeyKind, bytes]]:
    try:
        return ShareAction(body["action"]), (KeyKind(body["kind"]), bytes.fromhex(body["public"]))
    except (KeyError, ValueError, TypeError):
        raise ShareRefused("a record of a key that is handed over cannot be read") from None


def _offer(name: tuple[KeyKind, bytes], body: Mapping[str, Any]) -> Offer:
    try:
        before, signature = bytes.fromhex(body["predecessor"]), bytes.fromhex(body["signature"])
        return Offer(*name, before, signature, int(body["until_s"]))
    except (KeyError, ValueError, TypeError):
        raise ShareRefused("the offer of a key cannot be read") from None


def _after(share: Share, action: ShareAction, replica: str) -> Share:
    if action is ShareAction.TAKEN:
        return replace(share, taken=share.taken | {replica})
    if action is ShareAction.CLEARED:
        return replace(share, is_cleared=True)
    return replace(share, state=action) if share.state is ShareAction.OFFERED else share


class KeyShelf(Protocol):
    """Where sealed private halves lie until the other gateways have them. Closed: no clear yes is ``Unavailable``."""

    async def put(self, public: bytes, sealed: str) -> None:
        """Lay one there; ``public`` names it.

        Raises:
            Unavailable: it is not there now, or that cannot be told.
        """

    async def get(self, public: bytes) -> str | None:
        """What lies there; None = nothing.

        Raises:
            Unavailable: that cannot be told.
        """

    async def clear(self, public: bytes) -> None:
        """Nothing of it is left there.

        Raises:
            Unavailable: that cannot be told.
        """


class SharedKey(Protocol):
    """One kind of key that all gateways on a log must have. Closed: what is not proven is not used."""

    @property
    def kind(self) -> KeyKind: ...  # noqa: D102

    def roots(self) -> Iterable[bytes]:
        """The public keys of this kind that are known here."""

    def needs(self, share: Share, *, is_newest: bool) -> bool:
        """Whether its private half is to be here; ``is_newest``: no later one of this kind is agreed upon."""

    def has(self, public: bytes) -> bool:
        """Whether its private half is here."""

    async def take(self, private: bytes) -> None:
        """Keep the private half, 32 bytes, durably; it signs nothing yet.

        Raises:
            Unavailable: it cannot be kept.
        """

    async def follow(self, agreed: Sequence[Share]) -> None:
        """Put in force what was agreed upon, all of it so far, oldest first; end what it replaced, also without it.

        Raises:
            Unavailable: it cannot be done; what was in force is so still.
        """

    async def drop(self, public: bytes) -> None:
        """Forget a key that was withdrawn, and its file.

        Raises:
            Unavailable: the file cannot be removed.
        """

    def copying(self, public: bytes) -> str:
        """What to copy from another gateway where the vault has no copy any more."""


@dataclass(frozen=True, slots=True)
class Handing:
    """A key that is to be handed over.

    Attributes:
        private: its private half, 32 bytes.
        sign: signs with the key in force.
        drafts: records that come to be together with the agreement.
    """

    offer: Offer
    private: bytes = field(repr=False)
    sign: Callable[[bytes], bytes] = field(repr=False)
    drafts: tuple[Draft, ...] = ()


class KeyHandover(Protocol):
    """Hands keys over to all gateways on the log. Closed: until all that live have one, it is not in force."""

    async def hand_over(self, key: Handing) -> None:
        """Return once it is agreed upon and in force here.

        Raises:
            Conflict: another one of its kind is being handed over.
            Unavailable: a gateway does not take it, or the vault or the log is not there; the key before is in force.
        """

    async def is_open(self, kind: KeyKind, public: bytes) -> bool:
        """Whether the log knows of it as offered or agreed upon.

        Raises:
            Unavailable: the log cannot be read.
        """
