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

__all__ = ["FAILED", "PASSED", "problems", "sources_digest", "stale", "write"]

FOLDER: Final = ROOT / "docs" / "evidence"
KNOWN: Final = (
    "deep",
    "faults",
    "policy-diff",
    "hidden-timing",
    "kill",
    "leases",
    "hashicorp",
    "rpc-fuzz",
    "sdk-client",
)
PASSED: Final = "passed"
FAILED: Final = "failed"
_MEMBERS: Final = frozenset({"campaign", "commit", "covered", "digest", "seed", "counts", "seconds", "verdict"})


def write(campaign: str, found: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """Write the evidence of a campaign; returns the file.

    ``found`` holds the members that are not added here, and the digest of the sources as the campaign met them.
    """
    document = {"campaign": campaign, "commit": commit(), "covered": list(COVERED)}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{campaign}.json"
    path.write_text(json.dumps({**document, **found}, indent=2) + "\n", "utf-8")
    return path


def problems(folder: Path = FOLDER) -> list[str]:
    """What is wrong with the evidence of the known campaigns: there is none, it says too little, or it failed."""
    return [problem for name in KNOWN for problem in _problems(folder / f"{name}.json")]


def stale(folder: Path = FOLDER, root: Path = ROOT) -> list[str]:
    """Campaigns and benchmarks whose evidence is of other sources than those in ``root``."""
    found = [(path.stem, _read(path)) for path in sorted(folder.glob("*.json"))]
    return [name for name, said in found if said.get("digest") != sources_digest(root, said.get("covered", COVERED))]


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text("utf-8"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _problems(path: Path) -> list[str]:
    if not path.is_file():
        return [f"{path.stem}: there is no evidence; make campaign NAME={path.stem}"]
    said = _read(path)
    missing = sorted(_MEMBERS - said.keys())
    if missing:
        return [f"{path.stem}: the evidence lacks {', '.join(missing)}"]
    return [] if said["verdict"] == PASSED else [f"{path.stem}: the last campaign's verdict is {said['verdict']}"]
