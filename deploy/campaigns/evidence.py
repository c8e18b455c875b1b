"""Evidence of campaigns: one JSON file for each in ``docs/evidence``, and whether it is there, good and of this code.

Every file holds ``campaign``, ``commit``, ``covered``, ``digest`` (of the covered sources), ``seed``, ``counts``,
``seconds`` and ``verdict``: ``passed`` or ``failed``. Evidence of other sources than the present ones is stale: that is
listed and fails nothing, as not every change can wait for the long runs.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from loadtests.evidence import COVERED, commit, sources_digest
from loadtests.load import ROOT

FOLDER: Final = ROOT / "docs" / "evidence"
KNOWN: Final = ("faults",)
PASSED: Final = "passed"
FAILED: Final = "failed"
_MEMBERS: Final = frozenset({"campaign", "commit", "covered", "digest", "seed", "counts", "seconds", "verdict"})


def write(campaign: str, found: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """Write the evidence of a campaign: ``found`` with what is said of the sources; returns the file."""
    document = {"campaign": campaign, "commit": commit(), "covered": list(COVERED), "digest": sources_digest()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{campaign}.json"
    path.write_text(json.dumps({**document, **found}, indent=2) + "\n", "utf-8")
    return path


def problems(folder: Path = FOLDER) -> list[str]:
    """What is wrong with the evidence: a known campaign without any, a failed one, a file that says too little."""
    missing = [f"{name}: there is no evidence; make campaign NAME={name}" for name in KNOWN if not _path(folder, name)]
    return missing + [problem for path in sorted(folder.glob("*.json")) for problem in _problems(path)]


def stale(folder: Path = FOLDER, root: Path = ROOT) -> list[str]:
    """Campaigns whose evidence is of other sources than those in ``root``."""
    found = [(path.stem, json.loads(path.read_text("utf-8"))) for path in sorted(folder.glob("*.json"))]
    return [name for name, said in found if said["digest"] != sources_digest(root, said["covered"])]


def _path(folder: Path, name: str) -> Path | None:
    path = folder / f"{name}.json"
    return path if path.is_file() else None


def _problems(path: Path) -> list[str]:
    try:
        said = json.loads(path.read_text("utf-8"))
        missing = sorted(_MEMBERS - said.keys())
    except (ValueError, AttributeError):
        return [f"{path.stem}: the evidence is no JSON object"]
    if missing:
        return [f"{path.stem}: the evidence lacks {', '.join(missing)}"]
    return [] if said["verdict"] == PASSED else [f"{path.stem}: the last campaign's verdict is {said['verdict']}"]
