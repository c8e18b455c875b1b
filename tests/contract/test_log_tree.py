"""The tree a real log serves: every tile, bundle and proof against the records themselves."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.adapters.ledger.storage.files import DATABASE
from gateway.adapters.ledger.storage.site import Site
from gateway.core.errors import NotFound, Unavailable
from gateway.core.records import SYSTEM, Draft, EventType
from gateway.core.tiles import Tile, check_consistency, check_inclusion, read_proof, tiles, unbundle
from gateway.core.tlog import EMPTY_ROOT, Frontier, VerifierKey, leaf_hash, node_hash, open_checkpoint
from tests.ledgers import Books, asked, check, open_books

LARGE = 66_100


def change(books: Books) -> Draft:
    """A record outside any run."""
    clock = books.clock
    body = {"action": "test", "details": None}
    return Draft(clock.uuid(), EventType.ADMIN_CHANGE, clock.now_us(), bytes(16), SYSTEM, None, None, body)


async def grow(books: Books, size: int) -> list[bytes]:
    """Let the log have ``size`` records; returns their bytes."""
    ((count,),) = asked(books.site, "select count(*) from records")
    while count < size:
        more = min(1000, size - count)
        await books.ledger.append([change(books) for _ in range(more)])
        count += more
    return [entry for (entry,) in asked(books.site, "select leaf from records order by idx")]


def level_up(hashes: Sequence[bytes]) -> list[bytes]:
    """What the tops of full tiles over ``hashes`` are: eight levels of pairs, by the book."""
    whole = list(hashes[: len(hashes) // 256 * 256])
    for _ in range(8):
        whole = [node_hash(left, right) for left, right in zip(whole[::2], whole[1::2], strict=True)]
    return whole


def roots(entries: Sequence[bytes], sizes: set[int]) -> dict[int, bytes]:
    """The roots of the trees of these sizes."""
    frontier, found = Frontier(), {0: EMPTY_ROOT}
    for entry in entries:
        frontier.append(leaf_hash(entry))
        if frontier.size in sizes:
            found[frontier.size] = frontier.root()
    return found


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 700])
async def test_every_tile_and_every_proof(site: Site, size: int) -> None:
    """Bundles hash to the tiles, tiles to those above; each record's proof checks under the signed checkpoint."""
    async with open_books(site) as books:
        entries = await grow(books, size)
        hashes = [leaf_hash(entry) for entry in entries]
        levels = [hashes, level_up(hashes)]
        for tile in tiles(size):
            assert await books.tree.tile(tile) == b"".join(levels[tile.level][tile.first : tile.first + tile.width])
            if tile.level == 0:
                bundled = await books.tree.tile(Tile(0, tile.index, tile.width, is_bundle=True))
                assert unbundle(bundled) == entries[tile.first : tile.first + tile.width]
        key = VerifierKey.parse((site.folder / "keys/log.vkey").read_text())
        for index in range(size):
            proof = read_proof(await books.tree.prove(index))
            checkpoint = open_checkpoint(proof.checkpoint, key)
            assert (proof.index, proof.entry, checkpoint.size) == (index, entries[index], size)
            check_inclusion(hashes[index], index, size, proof.hashes, checkpoint.root)
    assert check(site).ok


async def test_a_large_log(tmp_path: Path) -> None:
    """Beyond 65,536 records the tree has a third level of tiles; proofs take the stored tops and check."""
    async with open_books(tmp_path) as books:
        entries = await grow(books, LARGE)
        hashes = [leaf_hash(entry) for entry in entries]
        first = level_up(hashes)
        levels = [hashes, first, level_up(first)]
        for tile in [tile for tile in tiles(LARGE) if tile.level or tile.index % 50 == 0]:
            assert await books.tree.tile(tile) == b"".join(levels[tile.level][tile.first : tile.first + tile.width])
        sizes = {1, 255, 256, 257, 4096, 65_535, 65_536, 65_537, LARGE - 1, LARGE}
        known = roots(entries, sizes)
        for index in (0, 255, 256, 65_535, 65_536, LARGE - 1):
            proof = read_proof(await books.tree.prove(index))
            check_inclusion(hashes[index], index, LARGE, proof.hashes, known[LARGE])
        for old in sorted(sizes):
            for new in [each for each in sizes if each >= old]:
                end, path = await books.tree.extend(old, new)
                check_consistency(old, known[old], end, known[new], path)
    assert check(tmp_path).ok


async def test_what_is_beyond_the_end(site: Site) -> None:
    """No tile, no proof and no tree is there before the records are."""
    async with open_books(site) as books:
        await grow(books, 300)
        for tile in (Tile(0, 1), Tile(0, 1, 45), Tile(0, 2, 1), Tile(1, 0, 2), Tile(2, 0, 1), Tile(63, 10**18)):
            with pytest.raises(NotFound):
                await books.tree.tile(tile)
        for index in (300, 2**53 - 1):
            with pytest.raises(NotFound):
                await books.tree.prove(index)
        for old, new in ((301, None), (2, 1), (0, 301)):
            with pytest.raises(NotFound):
                await books.tree.extend(old, new)


@pytest.mark.parametrize(
    "statement",
    [
        "update nodes set hash = zeroblob(32) where place = 1",
        "delete from nodes where place = 1",
        "insert into nodes values (8, 7, zeroblob(32))",
        "insert into nodes values (16, 0, zeroblob(32))",
    ],
)
async def test_an_altered_node_is_found(tmp_path: Path, statement: str) -> None:
    """By the verifier; and what is served from it is refused by who checks it, or is not served."""
    async with open_books(tmp_path) as books:
        await grow(books, 600)
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute(statement)
    db.commit()
    db.close()
    report = check(tmp_path)
    assert not report.ok
    assert all("node" in finding.problem for finding in report.findings)


async def test_a_tree_with_holes_is_not_served(tmp_path: Path) -> None:
    """A missing node or record is an error, never a shorter answer."""
    async with open_books(tmp_path) as books:
        entries = await grow(books, 600)
        db = sqlite3.connect(tmp_path / DATABASE)
        db.execute("delete from nodes where place = 0")
        db.execute("delete from records where idx = 3")
        db.commit()
        db.close()
        for tile in (Tile(1, 0, 2), Tile(0, 0), Tile(0, 0, 256, is_bundle=True)):
            with pytest.raises(Unavailable):
                await books.tree.tile(tile)
        with pytest.raises(Unavailable):
            await books.tree.prove(599)
        assert await books.tree.tile(Tile(0, 1)) == b"".join(leaf_hash(entry) for entry in entries[256:512])
