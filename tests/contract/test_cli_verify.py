"""``ostiary audit verify`` on a real log: sound as written, and any altered byte is found and named."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.ledger.keyring.keys import LOG_VKEY, PAYLOAD_KEK
from gateway.adapters.ledger.storage.files import DATABASE, GUARD
from gateway.cli.root import ostiary
from gateway.core.cosigning import CosignerKey, Witness, policy_over
from gateway.core.tiles import read_proof
from gateway.core.tlog import Signer, VerifierKey, split_note
from tests.evidence import make_principal
from tests.ledgers import Walk, open_books
from tests.liars import line as cosigned
from tests.liars import vkey as witness_vkey


def verify(folder: Path, *words: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(ostiary, ["audit", "verify", "--state", str(folder), *words])


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose log holds three calls."""

    async def fill() -> None:
        async with open_books(tmp_path) as books:
            for _ in range(3):
                await Walk(books).go()

    anyio.run(fill)
    return tmp_path


def alter(state: Path, statement: str, index: int) -> None:
    """Change the log behind the gateway's back."""
    with closing(sqlite3.connect(state / DATABASE)) as database, database:
        assert database.execute(statement, (index,)).rowcount == 1


def test_a_sound_log_is_said_to_be_sound(state: Path) -> None:
    """Counts, the signed root, and exit code 0; the same as JSON."""
    done = verify(state)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("sound: ")
    document = json.loads(verify(state, "--json").stdout)
    assert document["ok"]
    assert document["checkpoint"]["size"] == document["size"] > 6
    assert document["payloads"] > 0


def test_one_altered_byte_of_a_record_is_found_and_named(state: Path) -> None:
    """The first line names the record, and the exit code is 1."""
    alter(state, "update records set leaf = cast(replace(leaf, '\"v\":1', '\"v\":2') as blob) where idx = ?", 4)
    done = verify(state)
    assert done.exit_code == 1
    assert done.stdout.startswith("record 4 ")
    assert json.loads(verify(state, "--json").stdout)["findings"][0]["index"] == 4


def test_a_removed_record_is_found(state: Path) -> None:
    """Removal is named by index too."""
    alter(state, "delete from records where idx = ?", 5)
    assert "5" in verify(state).stdout.splitlines()[0]
    assert verify(state).exit_code == 1


def test_the_key_kept_elsewhere_counts(state: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A log signed with another key is not sound, however well it fits the key beside it."""
    elsewhere = tmp_path_factory.mktemp("auditor") / LOG_VKEY
    elsewhere.write_bytes((state / "keys" / LOG_VKEY).read_bytes())
    assert verify(state, "--vkey", str(elsewhere)).exit_code == 0
    text = elsewhere.read_text("ascii").strip()
    elsewhere.write_text(text[:-4] + ("AAA=" if not text.endswith("AAA=") else "BBB="), "ascii")
    assert verify(state, "--vkey", str(elsewhere)).exit_code == 1


def test_a_checkpoint_kept_elsewhere_counts(state: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The log must extend it; a file that is no checkpoint is a finding, a missing one a usage error."""
    kept = tmp_path_factory.mktemp("auditor") / "kept"
    kept.write_bytes((state / GUARD).read_bytes())
    done = verify(state, "--checkpoint", str(kept))
    assert done.exit_code == 0, done.output
    assert "kept elsewhere" not in done.stdout
    kept.write_text("no checkpoint")
    assert verify(state, "--checkpoint", str(kept)).exit_code == 1
    assert verify(state, "--checkpoint", str(kept.parent / "missing")).exit_code == 2


def test_what_was_not_checked_is_said(state: Path) -> None:
    """Payloads are opened on demand; without the key file that is a usage error, and keys are left unchecked."""
    assert "not checked: whether the payloads open" in verify(state).stdout
    document = json.loads(verify(state, "--payloads", "--json").stdout)
    assert document["opened"] == document["payloads"]
    assert len(document["unchecked"]) == 3
    (state / "keys" / PAYLOAD_KEK).unlink()
    assert "not checked: whether the data keys can be opened" in verify(state).stdout
    assert verify(state, "--payloads").exit_code == 2


def test_a_key_that_lies_beside_the_log_is_said_to_be_unchecked(state: Path, tmp_path: Path) -> None:
    """With a policy that names no log, too; with a key from elsewhere it is not said. The same for proofs."""
    vkey, words = state / "keys" / LOG_VKEY, "not checked: that the key is the log's"
    (tmp_path / "none").write_text("quorum none\n")
    (tmp_path / "named").write_text(f"log {vkey.read_text()}quorum none\n")
    given = {(): True, ("--policy", "none"): True, ("--policy", "named"): False, ("--vkey", str(vkey)): False}
    for proof in ((), ("--proof", str(proof_of(state, 4)))):
        for options, is_said in given.items():
            done = verify(state, *proof, *(str(tmp_path / word) if word[0] != "-" else word for word in options))
            assert (done.exit_code, words in done.stdout) == (0, is_said), (proof, options, done.output)


def test_a_proof_that_no_quorum_has_cosigned_proves_nothing(state: Path, tmp_path: Path) -> None:
    """Under a policy that asks for one; without it the proof holds, and says that nobody asked for witnesses."""
    proof, log = proof_of(state, 4), (state / "keys" / LOG_VKEY).read_text().strip()
    policy = policy_over((VerifierKey.parse(log),), (Witness("w", CosignerKey.parse(witness_vkey())),), 1)
    (tmp_path / "policy").write_text(policy.text)
    done = verify(state, "--proof", str(proof), "--policy", str(tmp_path / "policy"), "--json")
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (1, False)
    assert "quorum witnesses of witnesses has not cosigned" in done.stderr
    assert "not checked: whether others were shown another log" in verify(state, "--proof", str(proof)).stdout
    text = read_proof(proof.read_text()).checkpoint
    proof.write_text(proof.read_text() + cosigned(split_note(text)[0], 1_700_000_000))
    done = verify(state, "--proof", str(proof), "--policy", str(tmp_path / "policy"))
    assert (done.exit_code, "not checked" in done.stdout) == (0, False), done.output
    proof.write_text(proof.read_text() + cosigned("another text\n", 1_700_000_000))
    assert verify(state, "--proof", str(proof), "--policy", str(tmp_path / "policy")).exit_code == 1


def test_a_log_without_its_key_is_a_usage_error(tmp_path: Path) -> None:
    """Exit code 2, and which file is missing."""
    done = verify(tmp_path)
    assert done.exit_code == 2
    assert LOG_VKEY in done.stderr


def proof_of(state: Path, index: int) -> Path:
    """A file that proves a record."""

    async def ask() -> str:
        async with open_books(state) as books:
            return await books.tree.prove(index)

    path = state / f"{index}.tlog-proof"
    path.write_text(anyio.run(ask), "utf-8")
    return path


def test_a_proof_needs_the_public_key_and_nothing_else(state: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The record, its place and the signed root are said; nothing of the log is read."""
    proof, vkey = proof_of(state, 4), state / "keys" / LOG_VKEY
    nowhere = tmp_path_factory.mktemp("nowhere")
    done = verify(nowhere, "--proof", str(proof), "--vkey", str(vkey))
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "proven: record 4 is in the log gateway.test/log")
    said = json.loads(verify(nowhere, "--proof", str(proof), "--vkey", str(vkey), "--json").stdout)
    assert (said["ok"], said["index"], said["record"]["v"]) == (True, 4, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [("index 4", "index 3"), ("@v1", "@v2"), ("\n\ngateway", "\ngateway"), ("extra ", "extra A"), ("log\n", "lag\n")],
)
def test_an_altered_proof_proves_nothing(state: Path, old: str, new: str) -> None:
    """Exit code 1 and what is wrong; for machines ``ok`` is false."""
    proof = proof_of(state, 4)
    proof.write_text(proof.read_text("utf-8").replace(old, new, 1), "utf-8")
    done = verify(state, "--proof", str(proof), "--json")
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (1, False)
    assert "the proof does not hold" in done.stderr


def test_a_proof_under_another_key_proves_nothing(state: Path) -> None:
    """Whose log it is counts, and a proof without its record says so."""
    proof, other = proof_of(state, 4), state / "other.vkey"
    other.write_text(Signer("gateway.test/log", Ed25519PrivateKey.generate()).key.text, "ascii")
    assert verify(state, "--proof", str(proof), "--vkey", str(other)).exit_code == 1
    first, _, rest = proof.read_text("utf-8").split("\n", 2)
    proof.write_text(f"{first}\n{rest}", "utf-8")
    assert "does not hold the entry" in verify(state, "--proof", str(proof)).stderr


def test_proofs_are_checked_by_the_keys_of_their_time(tmp_path: Path) -> None:
    """Beside the log its first key is enough; elsewhere it takes the key in force, or a policy that names it."""
    log = tmp_path / "log"

    async def rotate() -> tuple[str, str, str]:
        async with open_books(log) as books:
            await Walk(books).go()
            early = await books.tree.prove(2)
            new = (await books.room.rotate(make_principal())).key.text
            await books.room.retire(make_principal())
            return early, await books.tree.prove(2), new

    early, late, new = anyio.run(rotate)
    (tmp_path / "early").write_text(early)
    (tmp_path / "late").write_text(late)
    (tmp_path / "policy").write_text(policy_over([VerifierKey.parse(new)], (), 0).text)
    for name in ("early", "late"):
        assert verify(log, "--proof", str(tmp_path / name)).exit_code == 0
    old = ("--vkey", str(log / "keys" / LOG_VKEY))
    assert verify(log, "--proof", str(tmp_path / "early"), *old).exit_code == 0
    done = verify(log, "--proof", str(tmp_path / "late"), *old)
    assert done.exit_code == 1
    assert "ostiary audit keys list" in done.stderr
    elsewhere = tmp_path / "elsewhere"
    assert verify(elsewhere, "--proof", str(tmp_path / "late"), "--policy", str(tmp_path / "policy")).exit_code == 0
    (log / DATABASE).rename(tmp_path / "away")
    assert verify(log, "--proof", str(tmp_path / "late")).exit_code == 1
    (tmp_path / "policy").write_text("quorum\n")
    assert verify(log, "--policy", str(tmp_path / "policy")).exit_code == 2
