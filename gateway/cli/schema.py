"""``ostiary schema``: JSON Schemas for editors and for CI."""

import json

import click
from pydantic import BaseModel

from gateway.catalogue import CatalogueFile
from gateway.settings import GatewaySettings

_MODELS: dict[str, type[BaseModel]] = {"gateway": GatewaySettings, "catalogue": CatalogueFile}


@click.command()
@click.argument("file", type=click.Choice(list(_MODELS)))
def schema(file: str) -> None:
    """Print the JSON Schema of a configuration file.

    FILE is gateway (gateway.toml) or catalogue (a catalogue file).
    """
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_MODELS[file].model_json_schema(),
        "title": f"{file}.toml",
    }
    click.echo(json.dumps(document, indent=2))
