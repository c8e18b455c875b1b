"""The gateway's rules for the log's keys and those of an export's own check: two programs, the same verdict."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.export import verify
from gateway.core.cosigning import CosignerKey, Group, TrustError, TrustPolicy, Witness
from gateway.core.log_keys import KeyHistory, KeyRefused, added_body, first_body, retired_body
from gateway.core.tiles import consistency
from gateway.core.tlog import Checkpoint, Frontier, NoteError, Signer, leaf_hash, node_hash

NAME = "log.test"
SIGNERS = [Signer(NAME, Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in range(1, 5)]
FIRST = SIGNERS[0].key
_ADD = st.tuples(st.just("add"), st.integers(0, 3), st.integers(0, 3), st.booleans())
_RETIRE = st.tuples(st.just("retire"), st.integers(0, 3))


def body(step: tuple[Any, ...]) -> dict[str, Any]:
    """A record of a key, perhaps one that may not stand there."""
    if step[0] == "retire":
        return retired_body(SIGNERS[step[1]].key)
    _, new, by, good = step
    made = added_body(FIRST, SIGNERS[by], SIGNERS[new].key, 5)
    return made if good else made | {"signature": "00" * 64}


def ours(records: list[tuple[int, dict[str, Any]]]) -> KeyHistory | None:
    """What the gateway makes of them."""
    history = KeyHistory.begun(FIRST)
    try:
        for index, said in records:
            history = history.after(index, index, said)
    except KeyRefused:
        return None
    return history


def theirs(records: list[tuple[int, dict[str, Any]]]) -> Any:
    """What the check in a bundle makes of them."""
    try:
        return verify.trust.Keys([FIRST.text], records)
    except verify.Unsound:
        return None


# What may follow on each other, so that long histories are reached, and then anything.
_FAIR = [("add", 1, 0, True), ("retire", 0), ("add", 2, 1, True), ("retire", 1), ("add", 3, 2, True)]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, len(_FAIR)),
    st.lists(st.one_of(_ADD, _RETIRE), max_size=3),
    st.lists(st.tuples(st.integers(0, 12), st.lists(st.integers(0, 3), max_size=4)), max_size=6),
)
def test_both_accept_the_same_keys_and_checkpoints(
    fair: int, odd: list[tuple[Any, ...]], notes: list[tuple[int, list[int]]]
) -> None:
    """Any order of additions and retirements, signed for or not; any set of signatures at any size."""
    steps: list[tuple[Any, ...]] = [*_FAIR[:fair], *odd]
    records = [(0, first_body(FIRST)), *((index, body(step)) for index, step in enumerate(steps, 2))]
    history, keys = ours(records), theirs(records)
    assert (history is None) is (keys is None)
    if history is None:
        return
    for size, signers in notes:
        text = Checkpoint(NAME, size, bytes(32)).text
        note = f"{text}\n{''.join(SIGNERS[each].line(text) for each in signers) or SIGNERS[3].line('other')}"
        assert _opens(history.open, note, NoteError) is _opens(keys.open, note, verify.Unsound), (size, signers)


def _opens(act: Any, note: str, refusal: type[Exception]) -> bool:
    try:
        act(note)
    except refusal:
        return False
    return True


@given(st.lists(st.booleans(), min_size=4, max_size=4), st.integers(1, 3), st.integers(1, 2))
def test_both_count_a_quorum_alike(there: list[bool], inner: int, outer: int) -> None:
    """Of groups of groups."""
    witnesses = tuple(Witness(f"w{n}", CosignerKey(f"w{n}", bytes([n]) * 32)) for n in range(4))
    groups = {"g": Group(inner, ("w0", "w1", "w2")), "h": Group(outer, ("g", "w3"))}
    policy = TrustPolicy((FIRST,), witnesses, groups, "h")
    signed = [one.key for one, is_there in zip(witnesses, there, strict=True) if is_there]
    assert verify.trust.policy(policy.text).is_met([key.text for key in signed]) is policy.is_met(signed)


@pytest.mark.parametrize("name", ["w", "v"])
def test_both_refuse_one_key_under_two_names(name: str) -> None:
    """It would count twice, whatever name the key itself has; the same for a log's key."""
    one, two = (CosignerKey(each, bytes(32)).text for each in ("w", name))
    for text in (f"witness a {one}\nwitness b {two}\nquorum none\n", f"log {FIRST.text}\n" * 2 + "quorum none\n"):
        with pytest.raises(TrustError, match="twice"):
            TrustPolicy.parse(text)
        with pytest.raises(verify.Unsound, match="twice"):
            verify.trust.policy(text)


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 400))
def test_the_bundles_check_takes_our_proofs_and_no_others(old: int, more: int, flip: int) -> None:
    """That one tree begins the other: as the gateway proves it; with one bit of it changed it is refused."""
    leaves = [leaf_hash(bytes([n])) for n in range(old + more)]
    trees = [(0, b"")]
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
        trees.append((frontier.size, frontier.root()))

    def node(level: int, place: int) -> bytes:
        if level == 0:
            return leaves[place]
        return node_hash(node(level - 1, 2 * place), node(level - 1, 2 * place + 1))

    proof = consistency(old, old + more, node)
    assert _extends(trees[old], trees[-1], proof)
    if proof:
        at = flip % len(proof)
        proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
    else:
        proof = [bytes(32)]
    assert not _extends(trees[old], trees[-1], proof)


def _extends(old: tuple[int, bytes], new: tuple[int, bytes], proof: list[bytes]) -> bool:
    try:
        verify.trust.check_extension(old, new, proof)
    except verify.Unsound:
        return False
    return True
