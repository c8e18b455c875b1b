"""Keys that gateways hand over, as the log's records say: what may follow what, and whose offers count."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.key_sharing import (
    NotTaken,
    Offer,
    Share,
    ShareAction,
    ShareRefused,
    admit,
    check_taken,
    genuine,
    offer_message,
    offered_body,
    share_body,
    standing,
)
from gateway.core.rotation import KeyKind

LOG = "gateway.test/log+00000000+key"
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([at]) * 32) for at in range(5)]
PUBLIC = [key.public_key().public_bytes_raw() for key in KEYS]


def offer(at: int, kind: KeyKind = KeyKind.ISSUER_KEY, until_s: int = 100) -> Offer:
    """Key ``at`` + 1, signed for by key ``at``."""
    bare = Offer(kind, PUBLIC[at + 1], PUBLIC[at], until_s=until_s)
    return Offer(kind, bare.public, bare.predecessor, KEYS[at].sign(offer_message(LOG, bare)), until_s)


def said(*words: tuple[str, int, str], kind: KeyKind = KeyKind.ISSUER_KEY) -> tuple[Share, ...]:
    """How keys stand after these: action, which key, and by whom."""
    found: list[tuple[int, dict[str, Any]]] = []
    for at_us, (action, at, replica) in enumerate(words):
        one = offer(at, kind)
        body = offered_body(one, replica) if action == "offered" else share_body(ShareAction(action), one, replica)
        found.append((at_us, body))
    return standing(found)


def test_a_key_is_offered_taken_agreed_upon_and_cleared() -> None:
    """Who offers it has it; what comes after its end changes nothing, nor what is said of a key nobody offered."""
    words = [("taken", 2, "b"), ("offered", 0, "a"), ("taken", 0, "b"), ("agreed", 0, "a"), ("withdrawn", 0, "b")]
    (share,) = said(*words)
    assert share == Share(offer(0), "a", 1, ShareAction.AGREED, frozenset({"a", "b"}))
    (share,) = said(*words, ("offered", 0, "c"), ("cleared", 0, "b"))
    assert (share.by, share.is_cleared, share.name) == ("a", True, (KeyKind.ISSUER_KEY, PUBLIC[1]))
    assert said(("offered", 0, "a"), ("withdrawn", 0, "a"))[0].state is ShareAction.WITHDRAWN


@pytest.mark.parametrize(
    ("before", "action", "at", "words"),
    [
        ([("offered", 0, "a")], "offered", 1, "being handed over already"),
        ([("offered", 0, "a"), ("withdrawn", 0, "a")], "offered", 0, "being handed over already"),
        ([], "taken", 0, "never offered"),
        ([("offered", 0, "a"), ("withdrawn", 0, "a")], "agreed", 0, "was withdrawn already"),
        ([("offered", 0, "a"), ("agreed", 0, "a")], "withdrawn", 0, "was agreed already"),
        ([("offered", 0, "a")], "cleared", 0, "is needed"),
        ([("offered", 0, "a"), ("agreed", 0, "a"), ("cleared", 0, "a")], "cleared", 0, "gone already"),
    ],
)
def test_what_may_not_follow_is_refused(before: list[tuple[str, int, str]], action: str, at: int, words: str) -> None:
    """One at a time; agreed upon or withdrawn once; the vault's copy stays while it is needed."""
    one = offer(at)
    body = offered_body(one, "a") if action == "offered" else share_body(ShareAction(action), one, "a")
    with pytest.raises(ShareRefused, match=words):
        admit(said(*before), body, ())


def test_what_may_follow_is_admitted() -> None:
    """The next one once the one before has ended, and another kind beside it."""
    done = said(("offered", 0, "a"), ("agreed", 0, "a"))
    assert done[0].state is ShareAction.AGREED
    admit(done, offered_body(offer(1), "b"), ("b",))
    admit(said(("offered", 0, "a")), offered_body(offer(1, KeyKind.LOG_KEY), "b"), ())
    for action in (ShareAction.TAKEN, ShareAction.CLEARED):
        admit(done, share_body(action, offer(0), "b"), ("b",))


def test_a_key_is_agreed_upon_once_all_that_live_have_it() -> None:
    """Whoever has not is named; a key that was never offered nobody has."""
    shares = said(("offered", 0, "a"), ("taken", 0, "b"))
    agreed = share_body(ShareAction.AGREED, offer(0), "a")
    admit(shares, agreed, ("b",))
    with pytest.raises(NotTaken, match="do not have the key: c, d"):
        admit(shares, agreed, ("d", "b", "c"))
    check_taken((), (KeyKind.LOG_KEY, PUBLIC[1]), ())
    with pytest.raises(NotTaken):
        check_taken(shares, (KeyKind.LOG_KEY, PUBLIC[1]), ("b",))


@pytest.mark.parametrize(
    "change",
    [
        {"action": "given"},
        {"kind": "no_key"},
        {"public": "xyz"},
        {"public": None},
        {"predecessor": None},
        {"signature": "xyz"},
        {"until_s": None},
    ],
)
def test_a_record_that_cannot_be_read_is_refused(change: dict[str, Any]) -> None:
    """In any member that counts."""
    with pytest.raises(ShareRefused, match="cannot be read"):
        standing([(0, offered_body(offer(0), "a") | change)])


def test_only_keys_that_a_known_one_signed_for_are_genuine() -> None:
    """One after the other from a key that is known; not from elsewhere, not with another end, not of another log."""
    chain = said(("offered", 0, "a"), ("agreed", 0, "a"), ("offered", 1, "b"))
    assert genuine(chain, LOG, [PUBLIC[0]]) == chain
    assert genuine(chain, LOG, [PUBLIC[1]]) == chain[1:]
    assert genuine(chain, LOG, [PUBLIC[3]]) == ()
    assert genuine(chain, "another.test/log+00000000+key", [PUBLIC[0]]) == ()
    longer = Offer(KeyKind.ISSUER_KEY, PUBLIC[1], PUBLIC[0], offer(0).signature, 10**10)
    assert genuine((Share(longer, "a", 0),), LOG, [PUBLIC[0]]) == ()
