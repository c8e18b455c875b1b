"""``ostiary audit evidence``: an export with what a review board asks for besides, and no secret in it."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.cli.export.command import Wish, choosing, selection, write
from gateway.cli.export.packing import write_json
from gateway.cli.export.sbom import sbom
from gateway.cli.reach import Line, Reach, reaching
from gateway.cli.screen import Misconfigured

_DISTRIBUTION = "ostiary"
_FACE = ("key_id", "public", "roles", "enrolled_by", "revoked")


@click.command()
@choosing
@click.option(
    "--config", multiple=True, type=click.Path(path_type=Path), help="Add the digest of this file; again for more."
)
@reaching
def evidence(reach: Reach, output: Path, *, payloads: bool, config: tuple[Path, ...], **given: Any) -> None:
    """Write the pack a review board asks for.

    An export (`ostiary audit export --help`) with the policy in force, the keys that may approve, a CycloneDX list of
    what this installation is made of, and digests of configuration files. Persons are named only with --payloads.
    """
    digests = {path.name: _digest(path) for path in config}

    def more(line: Line, folder: Path) -> None:
        place = folder / "evidence"
        place.mkdir()
        write_json(place / "sbom.json", sbom(_DISTRIBUTION, datetime.now(UTC).isoformat(timespec="seconds")))
        write_json(place / "policy.json", _policy(line))
        write_json(place / "reviewers.json", _reviewers(line, named=payloads))
        write_json(place / "configuration.json", {"sha256": digests})

    write(reach, Wish(selection(given), output, payloads=payloads, more=more))


def _policy(line: Line) -> dict[str, Any]:
    standing: dict[str, Any] = line.get("/v1/policy")
    found = line.get(f"/v1/policy/revisions/{standing['revision']}")
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in found["modules"]}
    digests["data.json"] = hashlib.sha256(found["data"].encode()).hexdigest()
    # What stands behind a ? may be what opens the address.
    places = [place.partition("?")[0] for place in standing["origin"]]
    layers = [{**one, "origin": one["origin"].partition("?")[0]} for one in standing["deny_only"]]
    return {**standing, "origin": places, "deny_only": layers, "sha256": digests}


def _reviewers(line: Line, *, named: bool) -> dict[str, Any]:
    found = line.get("/v1/reviewers")
    members = (*_FACE, "person") if named else _FACE
    return {"reviewers": [{name: one.get(name) for name in members} for one in found["reviewers"]]}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}", "name a file with --config") from None
