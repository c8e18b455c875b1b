"""``python -m deploy.campaigns.hashicorp``: builds the server if need be, runs the tests with it, leaves evidence.

The tests are those of OpenBao: contract, and end to end with real gateways. ``OSTIARY_TEST_HASHICORP`` makes them start
the other server; any other test of a vault can be run with it, too.
"""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from deploy.campaigns import evidence
from deploy.campaigns.hashicorp.build import VERSION, BuildError, built
from deploy.servers.hashicorp import VARIABLE
from loadtests.load import ROOT

TESTS: Final = (
    "tests/contract/test_lost_logins.py",
    "tests/contract/test_reaping.py",
    "tests/contract/test_vault.py",
    "tests/contract/test_vault_kv.py",
    "tests/contract/test_vault_pki.py",
    "tests/contract/test_vault_policies.py",
    "tests/e2e/test_kv.py",
    "tests/e2e/test_leases.py",
    "tests/e2e/test_pki.py",
    "tests/e2e/test_lent_headers.py",
    "tests/e2e/test_vault_join.py",
)


def main() -> int:
    """Run the campaign; 0 = passed, 1 = a test failed, 2 = it could not be run."""
    try:
        server = built()
    except BuildError as error:
        sys.stdout.write(f"not run: {error}\n")
        return 2
    digest, began = evidence.sources_digest(), time.monotonic()
    counts, failed = _run(server)
    seconds = round(time.monotonic() - began, 1)
    if evidence.sources_digest() != digest:
        sys.stdout.write("the sources changed while the campaign ran: it shows nothing of either\n")
        return 2
    hollow = [] if counts["passed"] else ["no test passed"]
    hollow += [f"{counts['skipped']} tests were skipped"] if counts["skipped"] else []
    verdict = evidence.FAILED if failed or hollow else evidence.PASSED
    document = {
        "digest": digest,
        "seed": 0,
        "server": f"HashiCorp Vault {VERSION}",
        "counts": dict(sorted(counts.items())),
        "seconds": seconds,
        "tests": list(TESTS),
        "failed": failed,
        "hollow": hollow,
        "verdict": verdict,
    }
    sys.stdout.write(f"evidence: {evidence.write('hashicorp', document)}\n{verdict}: {dict(counts)}, {seconds} s\n")
    return 0 if verdict == evidence.PASSED else 1


def _run(server: Path) -> tuple[Counter[str], list[str]]:
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--no-header", "--tb=no", *TESTS]
    environment = {**os.environ, VARIABLE: str(server)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)  # noqa: S603
    ended = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) (\S+)", done.stdout, re.MULTILINE)
    counts = Counter(str(ending).lower() for ending, _ in ended)
    return counts, sorted(name for ending, name in ended if ending in {"FAILED", "ERROR"})


if __name__ == "__main__":
    sys.exit(main())
