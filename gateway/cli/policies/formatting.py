"""``ostiary policy fmt``: OPA's own formatter, where it is installed."""

import shutil
import subprocess
from pathlib import Path

import click

from gateway.cli.screen import Failed, Misconfigured, answer, json_option, shown

_PATIENCE_S = 120


@click.command("fmt")
@click.argument("place", metavar="[DIR|FILE]", default=".", type=click.Path(path_type=Path, exists=True))
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 where a file is not formatted.")
@json_option
def fmt(place: Path, *, check: bool) -> None:
    """Format Rego as `opa fmt` does.

    With `regal` on PATH its findings are shown, too. Without `opa` on PATH nothing is done: exit code 2.
    """
    opa = shutil.which("opa")
    if opa is None:
        raise Misconfigured("policy fmt needs opa on PATH: https://www.openpolicyagent.org/docs/#running-opa")
    listed = _ran([opa, "fmt", "--list", "--", str(place)])
    if listed.returncode != 0:
        raise Failed(f"opa fmt refuses: {shown(listed.stderr.strip())}", "`ostiary policy check` names file and line")
    files = listed.stdout.split("\n")[:-1]
    if files and not check:
        done = _ran([opa, "fmt", "--write", "--", str(place)])
        if done.returncode != 0:
            raise Failed(f"opa fmt fails: {shown(done.stderr.strip())}")
    regal = shutil.which("regal")
    lint = None if regal is None else _ran([regal, "lint", "--", str(place)])
    verb = "not formatted" if check else "formatted"
    said = [f"{verb}: {shown(file)}" for file in files] or ["every file is formatted"]
    if lint is not None:
        said += [shown(line) for line in lint.stdout.splitlines()]
    ok = not (check and files) and (lint is None or lint.returncode == 0)
    answer({"ok": ok, "files": files, "regal": None if lint is None else lint.returncode == 0}, said)
    if not ok:
        raise click.exceptions.Exit(1)


def _ran(command: list[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(  # noqa: S603 - tools the user installed, on a path the user gave
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]} fails: {type(error).__name__}") from None
