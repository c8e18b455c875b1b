"""Witnesses' keys and cosignatures by the bytes of C2SP, and trust policies by its rules."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.cosigning import Cosignature, CosignerKey, TrustError, TrustPolicy, Witness, cosignatures, policy_over
from gateway.core.tlog import NoteError, Signer
from tests.liars import line, vkey

# Made by the Go library transparency-dev/formats (tests/foreign/witness) of the seed 00..1f.
GO_VKEY = "w.example/x+44cfd257+BAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
TEXT = "log.test\n5\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
LOG = Signer("log.test", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
A, B, C = (Witness(name, CosignerKey(f"{name}.example/w", bytes([at]) * 32)) for at, name in enumerate("ABC"))


def named(one: Witness) -> str:
    """Its line in a policy."""
    return f"witness {one.name} {one.key.text}"


def test_a_vkey_is_read_and_written_as_foreign_code_does() -> None:
    """The id is over the name, a newline, 04 and the key."""
    raw = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()
    assert CosignerKey("w.example/x", raw).text == GO_VKEY
    assert CosignerKey.parse(f" {GO_VKEY}\n") == CosignerKey("w.example/x", raw)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "malformed"),
        ("w.example/x", "malformed"),
        ("w example+44cfd257+AAAA", "malformed"),
        (GO_VKEY.replace("44cfd257", "4d3cf9af"), "does not fit"),
        (GO_VKEY.replace("+BAO", "+!!O"), "base64"),
        (LOG.key.text, "type 04"),
        ("w+00000000+" + base64.b64encode(b"\x04short").decode(), "type 04"),
    ],
)
def test_another_vkey_is_refused(text: str, problem: str) -> None:
    """Malformed, of a log, of another length, with another's id."""
    with pytest.raises(NoteError, match=problem):
        CosignerKey.parse(text)


def test_a_cosignature_is_over_time_and_checkpoint() -> None:
    """Written as it was read; those of strangers are ignored; a wrong one of a known key rejects the note."""
    key = CosignerKey.parse(vkey())
    note = LOG.sign(TEXT) + line(TEXT, 1_679_315_147)
    (word,) = cosignatures(note, (key, A.key))
    assert (word.key, word.time_s, word.line) == (key, 1_679_315_147, line(TEXT, 1_679_315_147))
    assert cosignatures(note, (A.key,)) == ()
    for wrong in (line("other\n5\n\n", 5), line(TEXT, 5)[:-9] + "AAAAAAA=\n"):
        with pytest.raises(NoteError):
            cosignatures(LOG.sign(TEXT) + wrong, (key,))
    short = base64.b64encode(key.id + b"12345678").decode()
    with pytest.raises(NoteError, match="wrong"):
        cosignatures(f"{LOG.sign(TEXT)}\u2014 {key.name} {short}\n", (key,))


def test_a_time_or_key_that_cannot_be_does_not_hold() -> None:
    """Beyond 2^63, or 32 bytes that are no point of the curve."""
    private = Ed25519PrivateKey.generate()
    key = CosignerKey("w", private.public_key().public_bytes_raw())
    late = private.sign(f"cosignature/v1\ntime {2**63}\n{TEXT}".encode())
    assert not Cosignature(key, 2**63, late).holds(TEXT)
    assert not Cosignature(CosignerKey("w", b"\xff" * 32), 5, bytes(64)).holds(TEXT)


EXAMPLE = f"""
# who may sign
log {LOG.key.text} https://log.test/
\t
witness A {A.key.text}
witness B {B.key.text}   https://b.example/
witness C {C.key.text}
group two 2 A B
group either any two C
group both all either
quorum both
"""


@pytest.mark.parametrize(
    ("signers", "met"), [("", False), ("A", False), ("AB", True), ("C", True), ("AC", True), ("ABC", True)]
)
def test_groups_are_counted(signers: str, met: bool) -> None:
    """Threshold, any and all, of witnesses and of groups."""
    policy = TrustPolicy.parse(EXAMPLE)
    assert policy.is_met({one.key for one in (A, B, C) if one.name in signers}) is met
    assert TrustPolicy.parse(policy.text) == policy
    assert [(one.name, one.url) for one in policy.witnesses] == [("A", None), ("B", "https://b.example/"), ("C", None)]


def test_a_policy_of_ours_is_one() -> None:
    """With no quorum, and with some of the witnesses; one witness alone may be the quorum."""
    bare = policy_over((LOG.key,), (), 0)
    assert bare.text == f"log {LOG.key.text}\nquorum none\n"
    assert bare.is_met(())
    some = policy_over((LOG.key,), (A, B, C), 2)
    assert TrustPolicy.parse(some.text) == some
    assert [some.is_met(signers) for signers in ((), (A.key,), (A.key, C.key))] == [False, False, True]
    assert TrustPolicy.parse(f"{named(A)}\nquorum A\n").is_met((A.key,))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no quorum"),
        ("quorum", "one line"),
        ("quorum none\nquorum none", "line 2"),
        ("quorum A", "not defined"),
        ("quorum none extra", "one line"),
        ("logs x", "neither of"),
        ("log", "VKEY"),
        ("log x", "malformed"),
        (f"log {LOG.key.text} a b", "VKEY"),
        (f"log {LOG.key.text}\nlog {LOG.key.text}", "line 2.*twice"),
        (f"log {A.key.text}", "not an Ed25519 key"),
        ("witness A", "NAME VKEY"),
        (f"witness A {LOG.key.text}", "type 04"),
        (f"{named(A)}\nwitness B {A.key.text}", "twice"),
        (f"{named(A)}\nwitness A {B.key.text}", "the name A"),
        (f"witness none {B.key.text}", "the name none"),
        ("group", "is meant"),
        ("group g any", "is meant"),
        (f"{named(A)}\ngroup g 2 A", "no more than"),
        (f"{named(A)}\ngroup g 0 A", "no more than"),
        (f"{named(A)}\ngroup g 01 A", "no more than"),
        (f"{named(A)}\ngroup g some A", "no more than"),
        (f"{named(A)}\ngroup g any A B", "B is not defined"),
        (f"{named(A)}\ngroup g any g", "g is not defined"),
        (f"{named(A)}\ngroup g any A A", "member twice"),
        (f"{named(A)}\ngroup g any A\ngroup h any A", "member twice"),
        (f"{named(A)}\ngroup A any A", "the name A"),
        (f"{named(A)}\ngroup none any A", "the name none"),
        ("quorum none\r", "control character"),
        ("quorum none\n" + "\n" * 5000, "too long"),
    ],
)
def test_a_policy_that_breaks_the_rules_is_refused_by_its_line(text: str, problem: str) -> None:
    """Unknown words, names before their definition, keys and members twice, thresholds nobody can meet."""
    with pytest.raises(TrustError, match=problem):
        TrustPolicy.parse(text)
