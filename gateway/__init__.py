"""Ostiary: the policy-enforcing gateway between AI agents and their tools."""

from importlib.util import find_spec
from pathlib import Path

_SIBLINGS = ("connectors", "policies", "sandbox")


def _refuse_strangers(home: Path) -> None:
    # The names are generic and other distributions own them too (pip overwrites silently). Whoever shadows one would
    # run its code, or its rules, inside the gateway. Looking a spec up imports nothing.
    for name in _SIBLINGS:
        spec = find_spec(name)
        found = Path(spec.origin).resolve().parent if spec is not None and spec.origin else None
        if found != home / name:
            raise ImportError(
                f"ostiary refuses to start: its package {name!r} is found at {found or 'no place'}, not in {home}. "
                "Install ostiary into an environment of its own (python -m venv) and set PYTHONSAFEPATH=1."
            )


_refuse_strangers(Path(__file__).resolve().parent.parent)
