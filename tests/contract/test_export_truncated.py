"""A bundle that was cut short: the stranger's check says so in one line, whichever file it is and wherever it ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.export import verify
from tests.export_world import Exporter, Past, check, copied, exporting, live, resealed

FILES = ("records.jsonl", "payloads.jsonl", "keys.json", "checkpoint", "log.vkey", verify.MANIFEST, verify.SEAL)
# After the first line of what has lines, in the middle of one, and nothing at all.
SHARES = (0.0, 0.4, 0.93)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """A gateway with a past."""
    with exporting(tmp_path_factory.mktemp("s")) as running:
        yield running


@pytest.fixture(scope="module")
def bundle(world: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its payloads."""
    past: Past = world.do(live, world.door)
    path = tmp_path_factory.mktemp("out") / "bundle"
    world.export(path, "--run", past.run.id, "--payloads")
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_ends_early_is_found(world: Exporter, bundle: Path, tmp_path: Path, name: str) -> None:
    """As a copy that broke off leaves it; and where the manifest was made to fit, too."""
    for share in SHARES:
        broken = copied(bundle, tmp_path / str(share))
        content = (broken / name).read_bytes()
        (broken / name).write_bytes(content[: int(len(content) * share)])
        refused(broken, world.vkey)
        if name not in {verify.MANIFEST, verify.SEAL}:
            refused(resealed(broken), world.vkey)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_did_not_arrive_is_found(world: Exporter, bundle: Path, tmp_path: Path, name: str) -> None:
    """It is not taken for one that was empty."""
    broken = copied(bundle, tmp_path / "broken")
    (broken / name).unlink()
    refused(broken, world.vkey)


def test_lines_that_were_cut_off_cleanly_are_found(world: Exporter, bundle: Path, tmp_path: Path) -> None:
    """Whole records from the end on, as a full disk leaves them at a lucky moment."""
    broken = copied(bundle, tmp_path / "broken")
    lines = (broken / "records.jsonl").read_bytes().splitlines(keepends=True)
    (broken / "records.jsonl").write_bytes(b"".join(lines[:-3]))
    refused(broken, world.vkey)
    refused(resealed(broken), world.vkey)


def refused(bundle: Path, vkey: str) -> None:
    """The bundle's own script ends with 1 and says in one line what is not sound."""
    done = check(bundle, "--vkey", vkey)
    assert (done.returncode, done.stdout) == (1, ""), done.stdout
    assert done.stderr.startswith("NOT SOUND: ")
    assert done.stderr.count("\n") == 1, done.stderr
