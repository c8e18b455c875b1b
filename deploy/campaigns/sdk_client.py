"""``python -m deploy.campaigns.sdk_client``: the official SDK's own client at the conformance suite; leaves evidence.

What it passes is the yardstick for the gateway as a client: ``tests/e2e/test_conformance_client.py`` reads it.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from typing import Final

from deploy.campaigns import evidence
from loadtests.load import ROOT

_COVERED: Final = ("tests/e2e/clients", "tests/foreign/conformance")
_CLIENT: Final = ROOT / "tests" / "e2e" / "clients" / "conformance_sdk2.py"
_PYTHON: Final = ROOT / ".venvs" / "mcp2" / "bin" / "python"
_MODULES: Final = ROOT / ".venvs" / "conformance" / "node_modules"
_SUITE: Final = _MODULES / "@modelcontextprotocol" / "conformance"
_REVISIONS: Final = ("2025-11-25", "2026-07-28")
_SCORED: Final = re.compile(r"^client:\n((?:  - \S+\n)+)", re.MULTILINE)
_UNSCORED: Final = re.compile(r"^  - scenario: (\S+)\n    leg: client$", re.MULTILINE)
_VERSION: Final = "import importlib.metadata as m; print('mcp', m.version('mcp'))"


def _scenarios(revision: str) -> dict[str, list[str]]:
    text = (_SUITE / "requirements" / f"{revision}.yaml").read_text("utf-8")
    section = _SCORED.search(text)
    scored = section[1].replace("  - ", "").split() if section else []
    return {"scored": scored, "not_scored": _UNSCORED.findall(text)}


def _passes(scenario: str, revision: str) -> bool:
    # Extensions belong to no revision; without the last word they would not be run, and end as if they had passed.
    words = [
        "client",
        "--command",
        f"{_PYTHON} {_CLIENT}",
        "--scenario",
        scenario,
        "--spec-version",
        revision,
        "--force",
    ]
    with tempfile.TemporaryDirectory() as folder:
        words += ["--spec-version", revision, "-o", folder]
        node = next(_MODULES.glob("node-linux-*/bin/node"))
        command = [str(node), str(_SUITE / "dist" / "index.js"), *words]
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True)  # noqa: S603 -- the pinned suite
    sys.stdout.write(f"{revision} {scenario}: {'failed' if done.returncode else 'passed'}\n")
    sys.stdout.flush()
    return done.returncode == 0


def _judged(names: list[str], revision: str) -> dict[str, list[str]]:
    good = [name for name in names if _passes(name, revision)]
    return {"passed": good, "failed": [name for name in names if name not in good]}


def _sdk() -> str:
    return subprocess.run([_PYTHON, "-c", _VERSION], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 -- our own interpreter


def main() -> int:
    """Run the campaign; 0 = every scenario has its verdict, which may be a bad one: it is the SDK's."""
    digest, began = evidence.sources_digest(ROOT, _COVERED), time.monotonic()
    found = {
        revision: {kind: _judged(names, revision) for kind, names in _scenarios(revision).items()}
        for revision in _REVISIONS
    }
    scored = [said["scored"] for said in found.values()]
    counts = {mark: sum(len(marks[mark]) for marks in scored) for mark in ("passed", "failed")}
    document = {
        "covered": list(_COVERED),
        "digest": digest,
        "seed": 0,
        "sdk": _sdk(),
        "suite": json.loads((_SUITE / "package.json").read_text("utf-8"))["version"],
        "counts": counts,
        "seconds": round(time.monotonic() - began, 1),
        "revisions": found,
        "verdict": evidence.PASSED if counts["passed"] else evidence.FAILED,
    }
    sys.stdout.write(f"evidence: {evidence.write('sdk-client', document)}\n{document['verdict']}: {counts}\n")
    return 0 if counts["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
