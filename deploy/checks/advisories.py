"""Looks every pinned dependency up in the public advisory databases, by way of pip-audit.

``python -m deploy.checks.advisories requirements/base.txt`` ends with 1 where a pinned version is known to be
vulnerable, or where the database answered for some dependencies and not for others. Where no database can be reached
it says so and ends with 0: that run proves nothing, and its output must not be read as a clean bill.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_DEADLINE_S = 300


def audit(requirements: Path) -> list[dict[str, Any]]:
    """What pip-audit says of each dependency; empty where it could not work at all."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--require-hashes"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_DEADLINE_S)  # noqa: S603 - fixed command
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError, TypeError):
        return []
    return found


def verdict(found: list[dict[str, Any]]) -> tuple[int, str]:
    """Exit code and words for pip-audit's findings.

    Args:
        found: objects with ``name`` and either ``skip_reason`` or ``version`` and ``vulns`` (objects with ``id``).
    """
    unseen = [str(one["name"]) for one in found if "skip_reason" in one]
    bad = {f"{one['name']} {one['version']}": [v["id"] for v in one["vulns"]] for one in found if one.get("vulns")}
    if bad:
        return 1, "vulnerable: " + "; ".join(f"{name} ({', '.join(ids)})" for name, ids in bad.items())
    if len(unseen) == len(found):
        return 0, "NOT CHECKED: no advisory database could be reached from here"
    if unseen:
        return 1, f"the advisory database has no answer for {', '.join(unseen)}"
    return 0, f"no known vulnerability in {len(found)} dependencies"


def main() -> int:
    """Print the verdict; the exit code is the program's."""
    code, words = verdict(audit(Path(sys.argv[1])))
    sys.stdout.write(f"advisories: {words}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
