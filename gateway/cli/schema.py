"""``ostiary schema``: JSON Schemas for editors, for CI and for OPA's type checker."""

import json
from importlib.resources import files
from pathlib import Path

import click
from pydantic import BaseModel

from gateway.adapters.rego import contract
from gateway.cli.screen import shown
from gateway.settings import GatewaySettings
from gateway.settings.catalogue import CatalogueFile

_MODELS: dict[str, type[BaseModel]] = {"gateway": GatewaySettings, "catalogue": CatalogueFile}
_POLICY = {name.partition(".")[0]: name for name in contract.NAMES}
_RECORD = "log-record"


@click.command()
@click.argument("file", type=click.Choice([*_MODELS, *_POLICY, _RECORD]), required=False)
@click.option(
    "--opa",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the schemas of the policy contract into DIR, for `opa check --schema DIR`.",
)
def schema(file: str | None, folder: Path | None) -> None:
    """Print the JSON Schema of settings, policy or the log.

    FILE is gateway (gateway.toml), catalogue (a catalogue file), policy-input or policy-decision, or log-record (the
    leaves of the log, by type). Packages name the schema of their input in their METADATA, as
    schema["policy-input.v1"].
    """
    if (file is None) == (folder is None):
        raise click.UsageError("name FILE, or a folder with --opa")
    if folder is not None:
        _write(folder)
    elif file in _POLICY:
        click.echo(contract.text(_POLICY[file]), nl=False)
    elif file == _RECORD:
        click.echo(files("gateway").joinpath("schemas", f"{_RECORD}.v1.json").read_text("utf-8"), nl=False)
    elif file is not None:
        _print(file)


def _print(file: str) -> None:
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_MODELS[file].model_json_schema(),
        "title": f"{file}.toml",
    }
    click.echo(json.dumps(document, indent=2))


def _write(folder: Path) -> None:
    for name in contract.NAMES:
        path = folder / f"{name}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(contract.text(name), "utf-8")
        except OSError as error:
            raise click.ClickException(f"{shown(str(path))} cannot be written: {error.strerror}") from None
        click.echo(shown(str(path)))
