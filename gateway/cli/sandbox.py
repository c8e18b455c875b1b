"""``ostiary sandbox``: this host's sandbox without a gateway."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import anyio
import click

from gateway.cli.screen import Failed, answer, json_option, shown
from gateway.core.errors import GatewayError
from gateway.core.sandbox import NO_SANDBOX, BoxLimits, Capabilities, Capability, Ended, Outcome
from gateway.parts.boxes import policy_line, summary
from sandbox.runner import BwrapRunner, Options

_bwrap = click.option("--bwrap", type=click.Path(path_type=Path, exists=True), help="The bubblewrap binary to use.")
_python = click.option("--python", type=click.Path(path_type=Path, exists=True), help="Interpreter, below /usr.")
_DEFAULT = BoxLimits()


@click.group()
def sandbox() -> None:
    """Try this host's sandbox, and run code in it."""


@sandbox.command()
@_bwrap
@_python
@json_option
def probe(bwrap: Path | None, python: Path | None) -> None:
    """Start boxes that try what they may not, and say what this host holds.

    Exit code 1 where no box can be started. A cap that is missing is named with what would give it, and with the line
    of gateway.toml that would accept it.
    """
    seen = anyio.run(_seen, Options(bwrap=bwrap, python=python, slots=1))
    answer(_capabilities(seen), _lines(seen))
    if not seen.usable:
        raise click.exceptions.Exit(1)


@sandbox.command()
@click.argument("file", type=click.File("rb"))
@click.option("--input", "stdin", type=click.File("rb"), help="File that the code reads on its standard input.")
@click.option("--memory-mb", type=click.IntRange(32), default=_DEFAULT.memory_mb, show_default=True)
@click.option("--pids", type=click.IntRange(1), default=_DEFAULT.pids, show_default=True)
@click.option("--cpu-s", type=click.FloatRange(0.01), default=_DEFAULT.cpu_ms / 1000, show_default=True)
@click.option("--wall-s", type=click.FloatRange(0.01), default=_DEFAULT.wall_ms / 1000, show_default=True)
@click.option("--output-bytes", type=click.IntRange(0), default=_DEFAULT.output_bytes, show_default=True)
@click.option("--work-mb", type=click.IntRange(1), default=_DEFAULT.work_mb, show_default=True)
@click.option(
    "--accept-missing",
    type=click.Choice([str(name) for name in Capability]),
    multiple=True,
    help="Run although this host cannot cap it; once for each.",
)
@_bwrap
@_python
@json_option
def run(file: BinaryIO, stdin: BinaryIO | None, accept_missing: tuple[str, ...], **wish: Any) -> None:
    """Run the Python program FILE (or - for standard input) in a box of its own.

    Its outputs come out as its own; exit code 0 where the program ended with 0, else 1. With --json one document tells
    how it ended, what it wrote and what it used.
    """
    limits = BoxLimits(
        memory_mb=wish["memory_mb"],
        pids=wish["pids"],
        cpu_ms=round(wish["cpu_s"] * 1000),
        wall_ms=round(wish["wall_s"] * 1000),
        output_bytes=wish["output_bytes"],
        work_mb=wish["work_mb"],
    )
    text, given = file.read(), b"" if stdin is None else stdin.read()
    options = Options(bwrap=wish["bwrap"], python=wish["python"], slots=1)
    seen, outcome = anyio.run(_outcome, options, (text, given, limits), accept_missing)
    _tell(seen, outcome, text)
    if outcome.ended is not Ended.EXITED or outcome.exit_code != 0:
        raise click.exceptions.Exit(1)


async def _seen(options: Options) -> Capabilities:
    async with BwrapRunner(options) as runner:
        return await runner.probe()


async def _outcome(
    options: Options, task: tuple[bytes, bytes, BoxLimits], accepted: tuple[str, ...]
) -> tuple[Capabilities, Outcome]:
    async with BwrapRunner(options) as runner:
        seen = await runner.probe()
        if not seen.usable:
            raise Failed("this host has no sandbox", seen.fixes.get(NO_SANDBOX))
        lacking = [name for name in seen.missing if name not in accepted]
        if lacking:
            flags = " ".join(f"--accept-missing {name}" for name in lacking)
            raise Failed(f"this host cannot cap: {', '.join(lacking)}", f"{seen.fixes[lacking[0]]}; or give {flags}")
        try:
            return seen, await runner.run(*task, seen)
        except GatewayError as error:
            raise Failed(error.detail, "`ostiary sandbox probe` says what this host holds") from error


def _tell(seen: Capabilities, outcome: Outcome, text: bytes) -> None:
    stdout, stderr = (stream.decode("utf-8", "replace") for stream in (outcome.stdout, outcome.stderr))
    document = {
        "ended": outcome.ended,
        "exit_code": outcome.exit_code,
        "stdout": stdout,
        "stderr": stderr,
        "usage": asdict(outcome.spent),
        "backend": seen.backend,
        "missing": list(seen.missing),
        "seccomp_sha256": seen.seccomp,
        "code_sha256": hashlib.sha256(text).hexdigest(),
    }
    answer(document, [_printable(line) for line in stdout.splitlines()])
    for line in stderr.splitlines():
        click.echo(_printable(line), err=True)
    if outcome.ended is not Ended.EXITED:
        click.echo(f"ostiary: the box was killed: {outcome.ended}", err=True)


def _printable(line: str) -> str:
    return shown(line.expandtabs())


def _capabilities(seen: Capabilities) -> dict[str, Any]:
    document = {"ok": seen.usable and not seen.missing, **asdict(seen)}
    return document | ({"accept": policy_line(seen.missing)} if seen.usable and seen.missing else {})


def _lines(seen: Capabilities) -> Iterator[str]:
    yield summary(seen)
    if seen.usable:
        for name in seen.missing:
            yield f"missing {name}: {seen.fixes[name]}"
        if seen.missing:
            yield f"to run code all the same, in gateway.toml: {policy_line(seen.missing)}"
