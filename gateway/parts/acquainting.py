"""What the redactor knows from the start: every secret the settings name, and the gateway's own keys.

Before any call, as whatever comes first to show one (an upstream that reads files, an agent that was told one) must not
be the first the gateway hears of it. What cannot be read now is the business of the part that needs it.
"""

import base64
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.adapters.credentials import SecretSource, read_secret
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.core.needles import UnfitSecret
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.sections import SecretReference

_PUBLIC = frozenset({".vkey", ".pub"})


def named(settings: GatewaySettings) -> KnownValues:
    """What the variables that ``known_secrets`` names hold.

    Raises:
        SettingsError: one is not set, or what it holds cannot be kept out of outputs.
    """
    values = {name: os.environ.get(name, "") for name in settings.known_secrets}
    missing = [f"known_secrets: {name} is not set in the environment" for name, value in values.items() if not value]
    if missing:
        raise SettingsError(missing)
    known = KnownValues()
    for name, value in values.items():
        try:
            known.add(value)
        except UnfitSecret as error:
            raise SettingsError([f"known_secrets: {name}: {error}"]) from None
    return known


def configured(settings: GatewaySettings, known: KnownValues) -> None:
    """Know every value that a section refers to."""
    for place in _references(settings):
        with suppress(Unavailable):
            _know(read_secret("a secret", SecretSource(env=place.env, file=place.file), os.environ), known)


def own_keys(folder: Path, known: KnownValues) -> None:
    """Know the keys that are in ``folder`` now, as texts: PEM without its lines, others in base64 and hexadecimal."""
    for path in sorted(folder.glob("*")):
        if path.suffix in _PUBLIC or not path.is_file():
            continue
        with suppress(OSError):
            for text in _texts(path.read_bytes()):
                _know(text, known)


def learner(known: KnownValues) -> Callable[[bytes], None]:
    """Makes the content of a key's file known, before that is written."""

    def learn(content: bytes) -> None:
        for text in _texts(content):
            _know(text, known)

    return learn


def _texts(data: bytes) -> Iterator[str]:
    if b"PRIVATE KEY-----" in data:
        yield "".join(line for line in data.decode("ascii", "replace").splitlines() if "-----" not in line)
    else:
        yield base64.b64encode(data).decode()
        yield data.hex()


def _know(value: str, known: KnownValues) -> None:
    if value not in known.needles.values:
        with suppress(UnfitSecret):
            known.add(value)


def _references(value: Any) -> Iterator[SecretReference]:
    if isinstance(value, SecretReference):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _references(getattr(value, name))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _references(one)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for one in value:
            yield from _references(one)
