"""The ``ostiary`` command as the demo's people use it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OSTIARY = (sys.executable, "-m", "gateway")
ROOT = Path(__file__).resolve().parents[2]


class CommandFailed(Exception):
    """A command of ours ended with an error; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said.

    Attributes:
        document: its last line, where that is JSON.
        words: all it printed, both streams.
    """

    code: int
    document: Any
    words: str


def run(*words: str, state: Path | None = None, **environment: str) -> Said:
    """``ostiary WORDS --json`` to its end; ``state`` is the gateway's state folder, unless it is asked by URL."""
    command = [*OSTIARY, *words, "--json"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OSTIARY_")}
    place = {} if state is None else {"OSTIARY_STATE": str(state)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**inherited, **place, **environment}
    )
    try:
        document = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        document = None
    return Said(done.returncode, document, done.stdout + done.stderr)


def ask(*words: str, state: Path | None = None, **environment: str) -> Any:
    """The document of a command that must succeed.

    Raises:
        CommandFailed: it did not.
    """
    said = run(*words, state=state, **environment)
    if said.code != 0:
        raise CommandFailed(f"ostiary {' '.join(words)}: {said.words.strip()}")
    return said.document
