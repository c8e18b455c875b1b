"""Building the programs in this folder, where Go is; a machine without it says so."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# The flags that the Makefile builds an OPA server with: Go's own library is compiled already, which takes a minute.
_FLAGS = ("-trimpath", "-gcflags=all=-l", "-ldflags=-s -w")


@pytest.fixture(scope="session")
def logcheck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verifier made of the Go project's and Trillian's libraries."""
    return _built("logcheck", tmp_path_factory)


@pytest.fixture(scope="session")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The witness made of the Go project's and transparency-dev's libraries."""
    return _built("witness", tmp_path_factory)


def _built(name: str, folders: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: the log is not held against foreign code")
    program = folders.mktemp("foreign") / name
    environment = os.environ | {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly"}
    built = subprocess.run(
        [go, "build", *_FLAGS, "-o", str(program), "."],
        cwd=HERE / name,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        pytest.skip(f"{name} cannot be built here: {built.stderr.strip()[:300]}")
    return program


@dataclass(frozen=True, slots=True)
class Serving:
    """A witness process: its key (C2SP vkey) and its submission prefix."""

    vkey: str
    url: str


@contextmanager
def witnessing(program: Path, name: str, *logs: str) -> Iterator[Serving]:
    """A witness of the log with the keys ``logs``, as a process of its own; what it has seen ends with it."""
    command = [str(program), "serve", name, hashlib.sha256(name.encode()).hexdigest(), *logs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Serving(process.stdout.readline().strip(), process.stdout.readline().strip())
        finally:
            process.kill()


def quorum(program: Path, policy: str, checkpoint: str, folder: Path) -> bool:
    """Whether foreign code finds that the checkpoint meets the policy's quorum."""
    (folder / "foreign-policy").write_text(policy)
    (folder / "foreign-checkpoint").write_text(checkpoint)
    words = [str(program), "check", str(folder / "foreign-policy"), str(folder / "foreign-checkpoint")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode == 0


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
