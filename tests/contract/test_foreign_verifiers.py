"""A log that other people's code accepts, and in which it finds every flipped bit."""

import json
import random
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.records import SYSTEM, Draft, EventType
from gateway.core.tiles import Tile, tiles
from gateway.core.tlog import Signer
from tests.foreign.building import logcheck, refusal
from tests.ledgers import Books, open_books

__all__ = ["logcheck"]

SIZE = 530
FLIPS = 60


async def write_files(books: Books, folder: Path) -> None:
    """The log's tree as files, under the paths it is served at."""
    (folder / "proofs").mkdir(parents=True)
    (folder / "checkpoint").write_text(await books.tree.checkpoint())
    bundles = [Tile(0, tile.index, tile.width, is_bundle=True) for tile in tiles(SIZE) if tile.level == 0]
    for tile in [*tiles(SIZE), *bundles]:
        path = folder / "tile" / tile.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(await books.tree.tile(tile))
    for index in range(SIZE):
        (folder / f"proofs/{index}").write_text(await books.tree.prove(index))
    for old in range(1, SIZE + 1):
        new, proof = await books.tree.extend(old, None)
        said = {"old": old, "new": new, "proof": [b64encode(each).decode() for each in proof]}
        (folder / f"consistency_old={old}&new={new}").write_text(json.dumps(said))


@pytest.fixture
async def served(tmp_path: Path) -> Path:
    """A log of 530 records, as files; its public key is in ``keys/log.vkey`` beside them."""
    async with open_books(tmp_path) as books:
        clock, body = books.clock, {"action": "test"}
        drafts = [
            Draft(clock.uuid(), EventType.ADMIN_CHANGE, clock.now_us(), bytes(16), SYSTEM, None, None, body)
            for _ in range(SIZE - 1)
        ]
        await books.ledger.append(drafts)
        await write_files(books, tmp_path / "log")
    return tmp_path


@pytest.mark.requirement("AUDIT-3")
async def test_foreign_code_accepts_the_log(served: Path, logcheck: Path) -> None:
    """Each record, tile and proof, by the libraries of the Go project and of Trillian."""
    vkey = (served / "keys/log.vkey").read_text().strip()
    assert refusal(logcheck, str(served / "log"), vkey) is None


async def test_a_flipped_bit_anywhere_is_found(served: Path, logcheck: Path) -> None:
    """In the checkpoint, a tile, a bundle of records, a proof that is read: the log is refused."""
    vkey = (served / "keys/log.vkey").read_text().strip()
    chance = random.Random(5)
    files = sorted(path for path in (served / "log").rglob("*") if path.is_file())
    proofs = [path for path in files if path.parent.name == "proofs" and int(path.name) % 7 == 0]
    whole = [path for path in files if path.parent.name != "proofs" and not path.name.startswith("consistency")]
    assert len(whole) == 8
    for path in [*whole, *chance.choices(whole, k=FLIPS // 2), *chance.sample(proofs, FLIPS // 2)]:
        kept = path.read_bytes()
        at, bit = chance.randrange(len(kept)), chance.randrange(8)
        path.write_bytes(kept[:at] + bytes([kept[at] ^ 1 << bit]) + kept[at + 1 :])
        assert refusal(logcheck, str(served / "log"), vkey) is not None, (path, at, bit)
        path.write_bytes(kept)
    assert refusal(logcheck, str(served / "log"), vkey) is None


async def test_another_key_is_refused(served: Path, logcheck: Path) -> None:
    """A log says nothing to who does not have its key."""
    other = Signer("gateway.test/log", Ed25519PrivateKey.generate()).key.text
    assert refusal(logcheck, str(served / "log"), other) is not None
