"""Building the programs in this folder, where Go is; a machine without it says so."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "logcheck"


@pytest.fixture(scope="session")
def logcheck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verifier made of the Go project's and Trillian's libraries."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: the log is not held against foreign verifiers")
    program = tmp_path_factory.mktemp("foreign") / "logcheck"
    environment = os.environ | {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly"}
    built = subprocess.run(
        [go, "build", "-o", str(program), "."], cwd=SOURCE, env=environment, capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        pytest.skip(f"the foreign verifier cannot be built here: {built.stderr.strip()[:300]}")
    return program


def refusal(program: Path, base: str, vkey: str, token: str = "") -> str | None:
    """Why the verifier refuses the log at ``base``; None where it accepts it."""
    done = subprocess.run(
        [str(program), base, vkey],
        env={"LOG_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {0, 1}, done.stderr
    return None if done.returncode == 0 else done.stderr
