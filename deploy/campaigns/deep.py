"""``python -m deploy.campaigns.deep``: the deep tier of the tests, which ``make test`` leaves out; leaves evidence.

Each case is one more of a test that runs each time on fewer (``tests/tiers.py``).
"""

import re
import subprocess
import sys
import time
from collections import Counter
from typing import Final

from deploy.campaigns import evidence
from loadtests.load import ROOT

_COMMAND: Final = ("-m", "pytest", "-q", "-rA", "--no-header", "--tb=short", "--deep", "-m", "deep", "tests")
_ENDED: Final = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED) (\S+)")


def main() -> int:
    """Run the campaign; 0 = passed, 1 = a test failed or did not run, 2 = it shows nothing."""
    digest, began = evidence.sources_digest(), time.monotonic()
    counts: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    odd: list[str] = []
    with subprocess.Popen((sys.executable, *_COMMAND), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            if found := _ENDED.match(line):
                counts[found[1].lower()] += 1
                tests[found[2].partition("[")[0]] += found[1] == "PASSED"
                odd += [] if found[1] == "PASSED" else [line.strip()]
        code = process.wait()
    seconds = round(time.monotonic() - began, 1)
    if evidence.sources_digest() != digest:
        sys.stdout.write("the sources changed while the campaign ran: it shows nothing of either\n")
        return 2
    good = code == 0 and counts["passed"] > 0 and not odd
    document = {
        "digest": digest,
        "seed": 0,
        "counts": dict(sorted(counts.items())),
        "seconds": seconds,
        "tests": dict(sorted(tests.items())),
        "odd": odd,
        "verdict": evidence.PASSED if good else evidence.FAILED,
    }
    sys.stdout.write(
        f"evidence: {evidence.write('deep', document)}\n{document['verdict']}: {dict(counts)}, {seconds} s\n"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
