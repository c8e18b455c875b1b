"""Tiles and proofs against the recursive definitions of RFC 6962, and every way to alter one."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.tiles import (
    WIDTH,
    Proof,
    ProofError,
    Tile,
    bundle,
    check_consistency,
    check_inclusion,
    consistency,
    inclusion,
    read_proof,
    tiles,
    unbundle,
    write_proof,
)
from gateway.core.tlog import EMPTY_ROOT, leaf_hash, node_hash

LEAVES = [leaf_hash(str(number).encode()) for number in range(70)]
NOTE = "log.test\n3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\u2014 log.test AAAA\n"


def root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else EMPTY_ROOT
    split = half(len(leaves))
    return node_hash(root(leaves[:split]), root(leaves[split:]))


def half(count: int) -> int:
    """The largest power of two below ``count``."""
    split = 1
    while split * 2 < count:
        split *= 2
    return split


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    split = half(len(leaves))
    if index < split:
        return [*path(index, leaves[:split]), root(leaves[split:])]
    return [*path(index - split, leaves[split:]), root(leaves[:split])]


def subproof(old: int, leaves: list[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2."""
    if old == len(leaves):
        return [] if whole else [root(leaves)]
    split = half(len(leaves))
    if old <= split:
        return [*subproof(old, leaves[:split], whole=whole), root(leaves[split:])]
    return [*subproof(old - split, leaves[split:], whole=False), root(leaves[:split])]


def node(level: int, place: int) -> bytes:
    """Hash of a node over ``LEAVES``."""
    return root(LEAVES[place << level : (place + 1) << level])


def test_proofs_are_those_of_the_rfc() -> None:
    """Every leaf of every tree up to 70 leaves, and every pair of trees: the RFC's hashes, and they check."""
    for size in range(1, len(LEAVES) + 1):
        whole = root(LEAVES[:size])
        for index in range(size):
            proof = inclusion(index, size, node)
            assert proof == path(index, LEAVES[:size])
            check_inclusion(LEAVES[index], index, size, proof, whole)
        for old in range(1, size + 1):
            proof = consistency(old, size, node)
            assert proof == subproof(old, LEAVES[:size], whole=True)
            check_consistency(old, root(LEAVES[:old]), size, whole, proof)


def test_the_empty_tree_is_the_beginning_of_every_tree() -> None:
    """With an empty proof, and with no other."""
    assert consistency(0, 5, node) == []
    check_consistency(0, EMPTY_ROOT, 5, root(LEAVES[:5]), [])
    with pytest.raises(ProofError):
        check_consistency(0, EMPTY_ROOT, 5, root(LEAVES[:5]), [LEAVES[0]])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_no_proof_of_what_is_not_there(index: int, size: int) -> None:
    """Neither made nor accepted."""
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion(index, size, node)
    with pytest.raises(ProofError):
        check_inclusion(LEAVES[0], index, size, [], LEAVES[0])


@pytest.mark.parametrize(("old", "new"), [(4, 3), (-1, 3)])
def test_a_tree_is_not_the_beginning_of_a_smaller_one(old: int, new: int) -> None:
    """Neither proven nor accepted."""
    with pytest.raises(ValueError, match="not the smaller one"):
        consistency(old, new, node)
    with pytest.raises(ProofError):
        check_consistency(old, LEAVES[0], new, LEAVES[0], [])


@given(st.integers(1, 70), st.data())
def test_an_altered_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    """A bit of a hash, the leaf, the root, the place, the length: whatever is altered."""
    index = data.draw(st.integers(0, size - 1))
    proof, whole = inclusion(index, size, node), root(LEAVES[:size])
    hashes = [LEAVES[index], whole, *proof]
    which, bit = data.draw(st.integers(0, len(hashes) - 1)), data.draw(st.integers(0, 255))
    altered = bytearray(hashes[which])
    altered[bit // 8] ^= 1 << bit % 8
    hashes[which] = bytes(altered)
    with pytest.raises(ProofError):
        check_inclusion(hashes[0], index, size, hashes[2:], hashes[1])
    for other in ([*proof, LEAVES[0]], proof[:-1] if proof else [LEAVES[1]], proof[1:] if proof else [whole]):
        with pytest.raises(ProofError):
            check_inclusion(LEAVES[index], index, size, other, whole)
    if size > 1:
        with pytest.raises(ProofError):
            check_inclusion(LEAVES[index], index ^ 1 if index ^ 1 < size else index - 1, size, proof, whole)


@given(st.integers(2, 70), st.data())
def test_an_altered_consistency_proof_is_refused(new: int, data: st.DataObject) -> None:
    """A bit of a hash, either root, the length, or another size of the older tree."""
    old = data.draw(st.integers(1, new - 1))
    proof = consistency(old, new, node)
    hashes = [root(LEAVES[:old]), root(LEAVES[:new]), *proof]
    which, bit = data.draw(st.integers(0, len(hashes) - 1)), data.draw(st.integers(0, 255))
    altered = bytearray(hashes[which])
    altered[bit // 8] ^= 1 << bit % 8
    hashes[which] = bytes(altered)
    with pytest.raises(ProofError):
        check_consistency(old, hashes[0], new, hashes[1], hashes[2:])
    for other in ([*proof, LEAVES[0]], proof[:-1], proof[1:]):
        with pytest.raises(ProofError):
            check_consistency(old, root(LEAVES[:old]), new, root(LEAVES[:new]), other)


@given(st.integers(0, 2**60), st.integers(1, WIDTH), st.integers(0, 63), st.booleans())
def test_a_tile_has_one_path(index: int, width: int, level: int, is_bundle: bool) -> None:
    """Written and read back; groups of three digits, all but the last after an x."""
    tile = Tile(0 if is_bundle else level, index, width, is_bundle)
    assert Tile.parse(tile.path) == tile


def test_paths_of_the_specification() -> None:
    """The worked example, a partial tile, a bundle, and the tiles of a tree of 70,000."""
    assert Tile(0, 1234067).path == "0/x001/x234/067"
    assert Tile(1, 3, 17).path == "1/003.p/17"
    assert Tile(0, 1000, is_bundle=True).path == "entries/x001/000"
    found = list(tiles(70_000))
    assert [sum(tile.level == level for tile in found) for level in range(4)] == [274, 2, 1, 0]
    assert [tile.width for tile in found if tile.width < WIDTH] == [112, 17, 1]
    assert list(tiles(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles(0)) == []


NO_PATHS = """
0/0 0/00 0/0000 0/x000/001 00/001 64/001 0/001.p/0 0/001.p/256 0/001.p/01 0/001.p/ 0/001.p/1/ -1/001 entries 0 0/
entries/1 x/001 0/x01/001 0/001/x002 0/001/ 0//001 0/../001 0/\u0661\u0661\u0661 ENTRIES/001 0/001.P/3 0/001%2ep/3
"""


@pytest.mark.parametrize("path", NO_PATHS.split())
def test_what_is_no_path_of_a_tile(path: str) -> None:
    """Another spelling of a tile is no tile: caches and checks go by the path."""
    assert Tile.parse(path) is None


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 65_535, 65_536, 65_537, 70_000])
def test_a_tree_has_its_tiles_and_no_wider_ones(size: int) -> None:
    """Each of them is in it, and the next hash of any is not."""
    found = set(tiles(size))
    for tile in found:
        assert tile.is_in(size)
        if tile.width < WIDTH:
            assert not Tile(tile.level, tile.index, tile.width + 1).is_in(size)
    assert not Tile(0, size // WIDTH, size % WIDTH + 1).is_in(size)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles(entries: list[bytes]) -> None:
    """Read back whole; cut anywhere but between two entries they are refused."""
    data = bundle(entries)
    assert unbundle(data) == entries
    whole = set(itertools.accumulate((len(entry) + 2 for entry in entries), initial=0))
    for cut in set(range(len(data))) - whole:
        with pytest.raises(ProofError):
            unbundle(data[:cut])


@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63), st.binary(max_size=99))
def test_proof_files(index: int, hashes: list[bytes], entry: bytes) -> None:
    """Read back as written; the checkpoint stands in it verbatim."""
    proof = Proof(index, tuple(hashes), NOTE, entry)
    text = write_proof(proof)
    assert text.startswith("c2sp.org/tlog-proof@v1\n" + ("extra " if entry else f"index {index}\n"))
    assert text.endswith("\n\n" + NOTE)
    assert read_proof(text) == proof


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@v1", "@v2"),
        ("extra Z", "extra  Z"),
        ("extra Zg==", "extra Zh=="),
        ("extra Zg==", "extra Zg"),
        ("index 7", "index 07"),
        ("index 7", "index -7"),
        ("index 7", "index \u0667"),
        ("index 7", "Index 7"),
        ("index 7", ""),
        ("index 7\n", "index 7\nextra AAAA\n"),
        ("AAA=\n\n", "AAB=\n\n"),
        ("AAA=\n\n", "AA=\n\n"),
        ("AAA=\n\n", "A A=\n\n"),
        ("A" * 43 + "=\n", "AAAA\n"),
        ("\n\n", "\n"),
    ],
)
def test_a_malformed_proof_file(old: str, new: str) -> None:
    """Refused, never read as something else."""
    text = write_proof(Proof(7, (bytes(32),), NOTE.replace("\n\n", "\n"), b"f"))
    assert old in text
    with pytest.raises(ProofError):
        read_proof(text.replace(old, new, 1))
