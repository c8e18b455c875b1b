"""The export in docs/sample-export: what a stranger is told to try works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.export import verify
from tests.export_world import check

DOCS = Path(__file__).resolve().parents[2] / "docs"
SAMPLE = DOCS / "sample-export"
VKEY = (DOCS / "sample-export.vkey").read_text("ascii").strip()


@pytest.mark.requirement("AUDIT-3")
def test_the_sample_is_sound() -> None:
    """By its own check and by today's, under the key that lies beside it; its run is whole."""
    (run,) = verify.checked(SAMPLE, VKEY, []).runs
    for script in (SAMPLE / "verify.py", Path(verify.__file__)):
        done = check(SAMPLE, "--vkey", VKEY, "--run", run, script=script)
        assert (done.returncode, done.stderr) == (0, "")
        assert "2 reviewers' signatures are good" in done.stdout
        assert "what policy revision" not in done.stdout


def test_the_page_says_what_to_type() -> None:
    """The command on the page is one that works here."""
    page = (DOCS / "export.md").read_text("utf-8")
    found = re.search(
        r"^python3 (-I docs/sample-export/verify\.py --vkey docs/sample-export\.vkey.*)$", page, re.MULTILINE
    )
    assert found is not None
    command = [sys.executable, *found[1].split()]
    assert subprocess.run(command, cwd=DOCS.parent, capture_output=True, check=False).returncode == 0


def test_the_page_names_every_file() -> None:
    """What is in a bundle stands on the page."""
    page = (DOCS / "export.md").read_text("utf-8")
    names = {path.relative_to(SAMPLE).parts[0] for path in SAMPLE.rglob("*") if path.is_file()}
    assert [name for name in sorted(names) if f"`{name}" not in page] == []
