"""``[rotation]``: which keys the gateway replaces, and how often."""

from typing import Annotated

from pydantic import Field, StringConstraints

from gateway.settings.sections import Section

_MOST_H = 10 * 8_784
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
Place = Annotated[str, StringConstraints(pattern=rf"^[A-Za-z0-9_-]+(/{_SEGMENT})+$", max_length=256)]
Connection = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*/[A-Za-z0-9_.-]+$")]


class RotationSection(Section):
    """Hours between two rotations of each kind of key; 0 = only by `ostiary rotate`; none = not by the gateway."""

    secret_id_h: int | None = Field(None, ge=0, le=_MOST_H, description="Secret id of the gateway's AppRole.")
    database_h: int = Field(0, ge=0, le=_MOST_H, description="Root passwords of `databases`.")
    databases: tuple[Connection, ...] = Field(
        (), description="Connections of the vault's database engines, MOUNT/NAME, e.g. database/erp."
    )
    log_key_h: int = Field(0, ge=0, le=_MOST_H, description="Signing key of the log.")
    payload_key_h: int | None = Field(
        None, ge=0, le=_MOST_H, description="Key that wraps the keys of payloads: the vault's, or the one in its file."
    )
    issuer_key_h: int = Field(0, ge=0, le=_MOST_H, description="Signing key of the local issuer's tokens.")
    issuer_overlap_h: int = Field(
        8_784, ge=1, le=_MOST_H, description="How long tokens of an issuer's key that was replaced stay good, hours."
    )
    shared_keys: Place | None = Field(
        None,
        description="Place in a kv engine (version 2) of the vault, MOUNT/PATH, by which gateways on one log give each "
        "other new keys of the log and of the issuer; only their AppRole may use it.",
    )
    shared_keys_h: int = Field(
        4,
        ge=0,
        le=_MOST_H,
        description="How long a copy stays there for gateways that are down, hours; 0 = until all that live have it.",
    )
