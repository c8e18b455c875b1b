"""Bundles that an exporter altered, with a manifest that fits: what no signature speaks for is not let in beside it."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.export_world import Exporter, check, copied, exporting, live, resealed


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """A served log."""
    with exporting(tmp_path_factory.mktemp("log")) as world:
        yield world


@pytest.fixture(scope="module")
def bundle(world: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle of a run, with payloads."""
    path = tmp_path_factory.mktemp("bundle") / "run"
    world.export(path, "--run", world.do(live, world.door).run.id, "--payloads")
    return path


def problem(bundle: Path, vkey: str) -> str:
    """What is wrong with it, by its own check; there must be something."""
    done = check(bundle, "--vkey", vkey)
    assert done.returncode == 1, done.stdout
    return done.stderr


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("records.jsonl", lambda line: {**line, "note": "seen and found good"}),
        ("payloads.jsonl", lambda line: {**line, "base64": "ZXZpbA=="}),
        ("payloads.jsonl", lambda line: {**line, "text2": "evil"}),
    ],
)
def test_nothing_unsigned_stands_beside_what_is_signed(
    world: Exporter, bundle: Path, tmp_path: Path, name: str, act: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """A member more in a line would be read as if the log spoke for it."""
    broken = copied(bundle, tmp_path / "broken")
    first, *others = (broken / name).read_text("utf-8").splitlines(keepends=True)
    (broken / name).write_text("".join([json.dumps(act(json.loads(first))) + "\n", *others]), "utf-8")
    assert "has other members" in problem(resealed(broken), world.vkey)


@pytest.mark.parametrize("name", [None, "other.json", "note.txt"])
def test_a_policy_that_decided_nothing_here_is_refused(
    world: Exporter, bundle: Path, tmp_path: Path, name: str | None
) -> None:
    """It would be taken for the policy that decided, though its name fits its bytes."""
    broken = copied(bundle, tmp_path / "broken")
    (broken / "policies").mkdir(exist_ok=True)
    content = b"[[],{}]"
    (broken / "policies" / (name or f"{hashlib.sha256(content).hexdigest()}.json")).write_bytes(content)
    assert "policies/" in problem(resealed(broken), world.vkey)


def test_calls_without_an_end_are_said_not_to_be_checked(world: Exporter, bundle: Path, tmp_path: Path) -> None:
    """Who cuts the log off behind a call hides what became of it: how many such calls there are is said."""
    short = copied(bundle, tmp_path / "short")
    rows = [json.loads(line) for line in (short / "records.jsonl").read_text("utf-8").splitlines()]
    end = next(place for place, row in enumerate(rows) if json.loads(row["leaf"])["type"] == "tool.completed")
    kept = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows[:end])
    (short / "records.jsonl").write_text(kept, "utf-8")
    (short / "payloads.jsonl").write_text("", "utf-8")
    resealed(short, records=end, payloads=0)
    said = check(short, "--vkey", world.vkey).stdout
    assert "not checked: what became of 1 calls: their ends are not here" in said
    assert "a key's revocation may have been left out" in said
    assert "left out" in next(line for line in said.splitlines() if " payloads that are not here" in line)
    assert "what became of" not in check(bundle, "--vkey", world.vkey).stdout
