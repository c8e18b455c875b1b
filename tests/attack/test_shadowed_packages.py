"""Packages of our generic names that come from elsewhere: the gateway does not start beside them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(*path: Path) -> "subprocess.CompletedProcess[str]":
    """Import the gateway in a process of its own with these folders first on the module path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", "import gateway"]
    return subprocess.run(command, env=environment, cwd=path[0], capture_output=True, text=True, check=False)


def test_the_gateway_starts_among_its_own(tmp_path: Path) -> None:
    """With its siblings where they belong, the import succeeds."""
    assert start(tmp_path, ROOT).returncode == 0


@pytest.mark.parametrize("name", ["connectors", "policies", "sandbox"])
@pytest.mark.parametrize("file", ["{name}/__init__.py", "{name}.py"])
def test_a_stranger_of_our_name_stops_the_start(tmp_path: Path, name: str, file: str) -> None:
    """A package or module of the name, found first, is refused by path and name, and none of its code runs."""
    stranger = tmp_path / file.format(name=name)
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("raise SystemExit('the stranger ran')", "utf-8")
    done = start(tmp_path, ROOT)
    assert done.returncode == 1
    assert "refuses to start" in done.stderr
    assert str(tmp_path) in done.stderr
    assert "the stranger ran" not in done.stderr


def test_a_folder_without_code_is_no_stranger(tmp_path: Path) -> None:
    """A folder of policies in the working directory does not keep the gateway from starting."""
    (tmp_path / "policies").mkdir()
    assert start(tmp_path, ROOT).returncode == 0
