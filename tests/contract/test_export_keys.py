"""Exports of a log whose key was rotated, and that witnesses have cosigned: checked by any key it ever had."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.cosigning import CosignerKey, Witness, policy_over
from gateway.core.tlog import Checkpoint, Signer, VerifierKey, split_note
from tests.evidence import make_principal
from tests.export_world import Exporter, check, copied, exporting, live, resealed
from tests.ledgers import ORIGIN
from tests.liars import line, vkey

WITNESS = Witness("w", CosignerKey.parse(vkey()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """A log with a run under its first key, one under two keys, and one under the second alone."""
    with exporting(tmp_path_factory.mktemp("s")) as running:
        running.do(live, running.door)
        running.do(running.door.books.room.rotate, make_principal())
        yield running


@pytest.fixture(scope="module")
def both(world: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the overlap."""
    output = tmp_path_factory.mktemp("out") / "both"
    world.export(output, "--since", "2000-01-01")
    return output


@pytest.fixture(scope="module")
def after(world: Exporter, both: Path) -> Path:
    """A bundle of all of it, with a checkpoint from before that a witness has cosigned."""
    note = (both / "checkpoint").read_text("utf-8")
    world.do(world.door.books.room.retire, make_principal())
    world.witnesses.note = note + line(split_note(note)[0], int(time.time()))
    output = both.with_name("after")
    world.export(output, "--since", "2000-01-01")
    return output


def keys(world: Exporter) -> tuple[VerifierKey, VerifierKey]:
    """The log's first and second key."""
    first, second = (reign.key for reign in world.door.books.keys.ring.history.reigns)
    return first, second


@pytest.mark.requirement("AUDIT-3")
def test_any_key_of_the_log_will_do(world: Exporter, both: Path, after: Path) -> None:
    """In the overlap and after it; it is said which key signed up to where. Another one will not do."""
    for bundle in (both, after):
        for key in keys(world):
            done = check(bundle, "--vkey", key.text)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith("sound: ")
            assert f"in the log {keys(world)[0].text}" in done.stdout
        stranger = Signer(ORIGIN, Ed25519PrivateKey.generate()).key
        assert "another one" in check(bundle, "--vkey", stranger.text).stderr
    first, second = (key.id.hex() for key in keys(world))
    said = check(after, "--vkey", world.vkey).stdout
    assert f"key {first} of the log: trees of 0 to" in said
    assert "records; retired" in said
    assert f"key {second} of the log: trees of" in said


def test_the_policy_in_the_bundle_names_the_keys_in_force(world: Exporter, both: Path, after: Path) -> None:
    """Two while they overlap, then the one that is left; given from elsewhere, it is enough to check with."""
    first, second = keys(world)
    assert (both / "tlog-policy").read_text() == policy_over((first, second), (), 0).text
    assert (after / "tlog-policy").read_text() == policy_over((second,), (), 0).text
    elsewhere = after.with_name("elsewhere")
    elsewhere.write_text((after / "tlog-policy").read_text())
    done = check(after, "--policy", str(elsewhere))
    assert (done.returncode, done.stderr) == (0, "")
    assert "NOT CHECKED" not in done.stdout
    elsewhere.write_text("quorum none\n")
    assert "NOT CHECKED: that the key is the log's" in check(after, "--policy", str(elsewhere)).stdout
    assert "anything by witnesses: no policy asks for them" in done.stdout


def test_witnesses_of_a_policy_are_counted(world: Exporter, after: Path, tmp_path: Path) -> None:
    """The one that has cosigned an earlier tree covers that; one that has not is missed; two of one are not there."""
    log, other = keys(world)[:1], Witness("x", CosignerKey("x.example/w", bytes(32)))
    (tmp_path / "policy").write_text(policy_over(log, (WITNESS, other), 1).text)
    done = check(after, "--policy", str(tmp_path / "policy"))
    assert (done.returncode, done.stderr) == (0, "")
    size = json.loads((after / "witnessed.json").read_text())["checkpoint"].split("\n")[1]
    assert f"witness liar.example/w: up to {size} records" in done.stdout
    assert f"not checked: records from {size} on, by witnesses" in done.stdout
    for witnesses, count in (((WITNESS, other), 2), ((other,), 1)):
        (tmp_path / "policy").write_text(policy_over(log, witnesses, count).text)
        assert "have not cosigned" in check(after, "--policy", str(tmp_path / "policy")).stderr
    (tmp_path / "policy").write_text("quorum nobody\n")
    assert "malformed" in check(after, "--policy", str(tmp_path / "policy")).stderr


def _witnessed(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def act(bundle: Path) -> None:
        path = bundle / "witnessed.json"
        said = json.loads(path.read_text())
        change(said)
        path.write_text(json.dumps(said))

    return act


def _without_later_keys(bundle: Path) -> None:
    path = bundle / "records.jsonl"
    kept = path.read_text().splitlines(keepends=True)
    later = [text for text in kept if json.loads(json.loads(text)["leaf"])["type"] == "key"][1:]
    path.write_text("".join(text for text in kept if text not in later))


def _note(size: int) -> str:
    signer = Signer(ORIGIN, Ed25519PrivateKey.generate())
    return signer.sign(Checkpoint(ORIGIN, size, bytes(32)).text)


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (_without_later_keys, "another one"),
        (_witnessed(lambda said: said["consistency"].append("A" * 43 + "=")), "not the beginning"),
        (_witnessed(lambda said: said["consistency"].clear()), "not the beginning"),
        (_witnessed(lambda said: said.update(checkpoint=_note(3))), "another one"),
        (lambda bundle: (bundle / "witnessed.json").unlink(), "have not cosigned"),
        (lambda bundle: (bundle / "log.vkey").write_text(vkey() + "\n"), "log.vkey does not name"),
        (lambda bundle: (bundle / "tlog-policy").write_text("quorum none\n"), "does not name the keys in force"),
    ],
)
def test_what_was_left_out_or_put_in_is_found(
    world: Exporter, after: Path, tmp_path: Path, act: Callable[[Path], None], problem: str
) -> None:
    """Records of keys that are missing, another tree for witnesses, other keys beside it, whatever is listed."""
    broken = copied(after, tmp_path / "broken")
    act(broken)
    records = len((broken / "records.jsonl").read_text().splitlines())
    (tmp_path / "policy").write_text(policy_over(keys(world)[:1], (WITNESS,), 1).text)
    done = check(resealed(broken, records=records), "--policy", str(tmp_path / "policy"))
    assert done.returncode == 1
    assert problem in done.stderr
