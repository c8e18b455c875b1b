"""Write ``sandbox/seccomp/*.bpf`` and the table of call numbers: ``python -m deploy.seccomp.generate``.

Call numbers come from libseccomp through pyseccomp and are kept in ``numbers.json``, so that assembling needs neither.
"""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from deploy.seccomp.assemble import ARCHES, assemble

FOLDER = Path(__file__).resolve().parents[2] / "sandbox" / "seccomp"


def policy() -> dict[str, Any]:
    """The policy of system calls."""
    return tomllib.loads((FOLDER / "policy.toml").read_text("utf-8"))


def names() -> list[str]:
    """Every call that the policy names."""
    said = policy()
    return sorted({*said["allowed"], *said["refused"], *(rule["syscall"] for rule in said["only"] + said["without"])})


def numbers() -> dict[str, dict[str, int]]:
    """The kept table: by machine, the numbers of those calls it has."""
    found: dict[str, dict[str, int]] = json.loads((FOLDER / "numbers.json").read_text("utf-8"))
    return found


def looked_up(name: str, arch: str) -> int | None:
    """What the installed libseccomp says of a call; None where it, or the machine, has none of that name.

    Raises:
        RuntimeError: libseccomp is not installed.
    """
    import pyseccomp  # noqa: PLC0415 - it loads libseccomp, which not every machine has

    number = int(pyseccomp.resolve_syscall(ARCHES[arch], name))
    return number if number >= 0 else None


def program(arch: str, *, network: bool = False) -> bytes:
    """The program for ``arch``, made from the policy and the kept table; with ``network`` the one that has sockets."""
    return assemble(_networked(policy()) if network else policy(), numbers()[arch], arch)


def _networked(said: dict[str, Any]) -> dict[str, Any]:
    families = said["network"]["families"]
    only = [
        {**rule, "values": [*rule["values"], *families]} if rule["syscall"] == "socket" else rule
        for rule in said["only"]
    ]
    return {**said, "only": only}


def main() -> int:
    """Bring table and programs up to date; a number that an older libseccomp does not know is kept."""
    kept = numbers() if (FOLDER / "numbers.json").exists() else {}
    table = {arch: _table(kept.get(arch, {}), arch) for arch in sorted(ARCHES)}
    (FOLDER / "numbers.json").write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    for arch in ARCHES:
        (FOLDER / f"{arch}.bpf").write_bytes(program(arch))
        (FOLDER / f"{arch}.network.bpf").write_bytes(program(arch, network=True))
    return 0


def _table(kept: dict[str, int], arch: str) -> dict[str, int]:
    found = {name: number for name in names() if (number := looked_up(name, arch)) is not None}
    return {name: number for name, number in {**kept, **found}.items() if name in names()}


if __name__ == "__main__":
    sys.exit(main())
