"""The Merkle tree against RFC 6962's own definition, and signed notes against the C2SP rules."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.tlog import (
    EMPTY_ROOT,
    Checkpoint,
    Frontier,
    NoteError,
    Signer,
    VerifierKey,
    leaf_hash,
    node_hash,
    open_checkpoint,
    open_note,
)

# Key, text and signature of the worked example in the documentation of Go's x/mod/sumdb/note.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_SIGNATURE = (
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
SIGNER = Signer("log.test", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = Signer("other.test", Ed25519PrivateKey.from_private_bytes(bytes(32)))
KEY = VerifierKey.parse(SIGNER.key.text)


def naive_root(leaves: list[bytes]) -> bytes:
    """The recursion of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(naive_root(leaves[:split]), naive_root(leaves[split:]))


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_the_frontier_has_the_root_of_the_rfc(entries: list[bytes]) -> None:
    """Appending one by one gives the recursively defined root at every size, through encode and decode."""
    frontier, leaves = Frontier(), [leaf_hash(entry) for entry in entries]
    for count, leaf in enumerate(leaves, 1):
        frontier = Frontier.decode(frontier.size, frontier.encode())
        frontier.append(leaf)
        assert frontier.root() == naive_root(leaves[:count])
    assert frontier.size == len(entries)


@given(st.lists(st.integers(0, 20), max_size=12), st.integers(0, 70_000))
@example([70], 0xFFBF)  # across the top of a tile of the second level
@example([256, 0, 1, 257, 600], 3)
def test_many_leaves_at_once_fill_the_tree_node_by_node(counts: list[int], before: int) -> None:
    """The same right edge and tile tops as of a tree that names each node by level and place, from any size on."""
    levels = [level for level in reversed(range(17)) if before >> level & 1]
    tree = {(level, (before >> level) - 1): hashlib.sha256(bytes([level])).digest() for level in levels}
    frontier, size = Frontier(before, [tree[level, (before >> level) - 1] for level in levels]), before
    for count in counts:
        leaves = [leaf_hash(b"%d" % at) for at in range(size, size + count)]
        full = [top for at, leaf in enumerate(leaves, size) for top in completed(tree, at, leaf)]
        size += count
        assert sorted(frontier.extend(leaves)) == sorted(full)
        right = [tree[level, (size >> level) - 1] for level in reversed(range(18)) if size >> level & 1]
        assert (frontier.size, frontier.peaks) == (size, right)


def completed(tree: dict[tuple[int, int], bytes], place: int, top: bytes) -> list[tuple[int, int, bytes]]:
    """Put a leaf and all nodes that it completes into a tree; returns those that are tops of tiles."""
    level, full = 0, []
    tree[0, place] = top
    while place % 2:
        top = node_hash(tree[level, place - 1], top)
        level, place = level + 1, place // 2
        tree[level, place] = top
        if level in {8, 16}:
            full.append((level, place, top))
    return full


@given(st.lists(st.integers(0, 40), max_size=6))
def test_batches_have_the_root_of_the_rfc(counts: list[int]) -> None:
    """The recursion of the RFC over all leaves so far is what the frontier says after each batch."""
    frontier, leaves = Frontier(), list[bytes]()
    for count in counts:
        added = [leaf_hash(b"%d" % at) for at in range(len(leaves), len(leaves) + count)]
        frontier.extend(added)
        leaves += added
        assert (frontier.size, frontier.root()) == (len(leaves), naive_root(leaves))


def test_the_empty_tree_and_known_hashes() -> None:
    """Leaves and nodes are prefixed; the empty tree is the hash of nothing."""
    assert Frontier().root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"


def test_a_copy_goes_its_own_way() -> None:
    """Appending to a copy leaves the original as it was."""
    frontier = Frontier()
    frontier.append(leaf_hash(b"a"))
    root, other = frontier.root(), frontier.copy()
    other.append(leaf_hash(b"b"))
    assert (frontier.size, frontier.root()) == (1, root)
    assert other.size == 2


@pytest.mark.parametrize(("size", "peaks"), [(1, b""), (3, bytes(32)), (-1, b""), (2, bytes(33))])
def test_a_frontier_that_does_not_fit_is_refused(size: int, peaks: bytes) -> None:
    """The number of peaks follows from the size."""
    with pytest.raises(NoteError):
        Frontier.decode(size, peaks)


def test_a_note_signed_in_go_is_accepted() -> None:
    """The documented example of Go's note package verifies, and its key reads back the same."""
    key = VerifierKey.parse(GO_VKEY)
    assert key.text == GO_VKEY
    assert open_note(f"{GO_TEXT}\n{GO_SIGNATURE}", [key]) == GO_TEXT


def test_a_checkpoint_goes_round() -> None:
    """What is signed is what is read back."""
    checkpoint = Checkpoint(SIGNER.name, 7, bytes(range(32)))
    note = SIGNER.sign(checkpoint.text)
    assert open_checkpoint(note, KEY) == checkpoint
    assert note.splitlines()[0] == "log.test"


def test_unknown_signatures_are_ignored_and_wrong_ones_are_not() -> None:
    """A stranger's line does not matter; a known key's failing line rejects the note; no known line is not enough."""
    text = Checkpoint(SIGNER.name, 7, bytes(32)).text
    note, stranger = SIGNER.sign(text), OTHER.sign(text).rpartition("\n\n")[2]
    assert open_note(note + stranger, [KEY]) == text
    with pytest.raises(NoteError, match="no signature"):
        open_note(OTHER.sign(text), [KEY])
    with pytest.raises(NoteError, match="wrong"):
        open_note(note.replace("log.test\n7\n", "log.test\n8\n"), [KEY])


def test_text_and_signatures_part_at_the_last_blank_line() -> None:
    """A text may hold blank lines of its own."""
    text = "first\n\nsecond\n"
    assert open_note(SIGNER.sign(text), [KEY]) == text


def test_every_altered_byte_of_a_checkpoint_is_found() -> None:
    """Whatever single byte is changed, the note is not accepted."""
    note = SIGNER.sign(Checkpoint(SIGNER.name, 7, bytes(range(32))).text).encode()
    for at in range(len(note)):
        altered = bytearray(note)
        altered[at] ^= 1
        with pytest.raises(NoteError):
            open_checkpoint(altered.decode("utf-8", "replace"), KEY)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """The origin must be the key's name."""
    note = SIGNER.sign(Checkpoint("elsewhere.test", 7, bytes(32)).text)
    with pytest.raises(NoteError, match="another log"):
        open_checkpoint(note, KEY)


@pytest.mark.parametrize(
    "text",
    [
        "log.test\n7\n",
        "log.test\n07\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log.test\n-7\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log.test\n\u0667\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log.test\n7\n" + base64.b64encode(bytes(31)).decode() + "\n",
        "log.test\n7\nnot base64\n",
        "\n7\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log.test\n" + "9" * 5000 + "\n" + base64.b64encode(bytes(32)).decode() + "\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    """Sizes are plain numbers, roots are whole hashes."""
    with pytest.raises(NoteError):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "no signature\n",
        "text\n\nno dash AAAAAAA=\n",
        "text\n\n\u2014 name\n",
        "text\n\n\u2014 name AAAA\n",
        "text\n\n\u2014 na+me AAAAAAAA\n",
        "text\n\n\u2014 name AAAAAAAA",
        "te\rxt\n\n\u2014 name AAAAAAAA\n",
        "x" * 70_000,
    ],
)
def test_malformed_notes_are_refused(note: str) -> None:
    """A note is text, a blank line and signature lines, or it is nothing."""
    with pytest.raises(NoteError):
        open_note(note, [KEY])


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "log.test",
        "log test+00000000+AAAA",
        SIGNER.key.text.replace("log.test", "log.west"),
        GO_VKEY.replace("+AR", "+BB"),
        "log.test+00000000+####",
        "log.test+00000000+AQ==",
    ],
)
def test_malformed_verifier_keys_are_refused(vkey: str) -> None:
    """Name, key id and key must fit each other."""
    with pytest.raises(NoteError):
        VerifierKey.parse(vkey)


@given(st.text(st.characters(), max_size=200) | st.just("a\ud800\n\n\u2014 log.test AAAAAAAA\n"))
def test_garbage_never_leaks_another_error(garbage: str) -> None:
    """Whatever comes in, the only error is ``NoteError``."""
    for read in (Checkpoint.parse, VerifierKey.parse):
        with pytest.raises(NoteError):
            read(garbage)
    with pytest.raises(NoteError):
        open_note(garbage, [KEY])
