"""``ostiary policy build | sign | status``: policy as one signed archive, and what a gateway made of it."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import click

from gateway.adapters.clock import SystemClock
from gateway.adapters.rego.bundles import archive, building
from gateway.cli import home
from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import Failed, Misconfigured, answer, json_option, shown
from gateway.core.bundle import BundleError
from gateway.core.known import KnownValues
from gateway.parts.policy_sources import Sources
from gateway.settings import SettingsError

_FILE = click.Path(path_type=Path, dir_okay=False)
_EXISTING = click.Path(path_type=Path, exists=True, dir_okay=False)
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_CHECK = "see `ostiary policy check DIR`"
_out = click.option("--output", "-o", type=_FILE, default=Path("bundle.tar.gz"), show_default=True, help="Archive.")


@click.command()
@click.argument(
    "folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@click.option("--config", "-c", type=_EXISTING, help="A gateway.toml.")
@click.option("--deny-only", is_flag=True, help="Of DIR: write into its manifest that it may only restrict.")
@_out
@json_option
def build(folder: Path | None, config: Path | None, output: Path, *, deny_only: bool) -> None:
    """Write policy as one archive, its tests left out.

    The policies in DIR become a bundle for a gateway to fetch; what DIR/.manifest says of roots and metadata is kept.
    With --config, all that the gateway of that file serves becomes one for an OPA server beside it.
    """
    if (folder is None) == (config is None):
        raise click.UsageError("give DIR or --config")
    if config is not None and deny_only:
        raise click.UsageError("--deny-only goes with DIR; gateway.toml says it of its own layers")
    try:
        content = building.layer_archive(folder, deny_only=deny_only) if folder is not None else _whole(config)
    except BundleError as error:
        raise Failed(
            "\n".join(shown(problem) for problem in error.problems), "see `ostiary policy check DIR`"
        ) from None
    _write(output, content)
    answer(
        {"bundle": str(output), "bytes": len(content)},
        [f"written: {output}", f"next: ostiary policy sign {output} --key KEY.pem"],
    )


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=_EXISTING)
@click.option("--key", required=True, type=_EXISTING, help="PEM private key.")
@click.option("--key-id", default="bundle", show_default=True, help="Name of the key in the signature.")
@json_option
def sign(bundle: Path, key: Path, key_id: str) -> None:
    """Sign the archive BUNDLE (P-256, Ed25519 or RSA key), in place.

    A gateway takes it from `[policy.sources.NAME]` with the key's public half as `public_key`; OPA, too, checks it.
    """
    fix = "give the archive that `ostiary policy build` writes"
    try:
        archive.read(str(bundle), bundle.read_bytes())
        fix = "give a private key: openssl genpkey -algorithm ed25519 -out key.pem"
        content = building.signed(bundle.read_bytes(), key.read_bytes(), key_id)
    except BundleError as error:
        raise Failed(shown(str(error)), fix) from None
    _write(bundle, content)
    answer({"bundle": str(bundle), "bytes": len(content)}, [f"signed: {bundle}"])


@click.command()
@reaching
def status(reach: Reach) -> None:
    """Show which policy is in force, where it comes from, and why not a newer one.

    Exit code 1 where newer policy was refused or is out of reach.
    """
    found = reach.get("/v1/policy")
    answer(found, _told(found))
    if found.get("candidate"):
        raise click.exceptions.Exit(1)


def _whole(config: Path | None) -> bytes:
    assert config is not None
    try:
        sources = Sources(home.read(config), KnownValues(), SystemClock(), keep=False)
        return building.bundle_archive(anyio.run(sources.first))
    except SettingsError as error:
        raise home.unusable(error) from None


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise Misconfigured(f"{path}: {error.strerror}") from None


def _told(found: dict[str, Any]) -> list[str]:
    # A gateway of an earlier version does not say.
    restricted = found.get("deny_only", ())
    held = {one["origin"]: f"  deny-only, says {shown(' and '.join(one['said_by']))}" for one in restricted}
    lines = [
        f"revision  {shown(found['revision'])}",
        f"engine    {shown(found['engine'])}",
        f"since     {_moment(found['since_us'])}",
        *(f"from      {shown(place)}{held.get(place, '')}" for place in found["origin"]),
    ]
    candidate = found.get("candidate")
    if candidate:
        lines += ["", f"NOT IN FORCE since {_moment(candidate['since_us'])}: what the sources hold now"]
        lines += [f"  {shown(problem)}" for problem in candidate["problems"]]
    return lines


def _moment(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="seconds")
