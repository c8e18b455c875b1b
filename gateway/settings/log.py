"""``[log]``: the log's signing keys and its witnesses."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from gateway.core.cosigning import GROUP, NO_QUORUM, CosignerKey
from gateway.core.records import identifier
from gateway.core.tlog import NoteError
from gateway.settings.sections import NEAR_OR_TLS, Section

_RESERVED = (GROUP, NO_QUORUM)


class WitnessSection(Section):
    """Somebody else's server that cosigns the log's checkpoints (C2SP tlog-witness)."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)] = Field(
        description="Its name in policy files and metrics."
    )
    url: str = Field(
        pattern=f"^({NEAR_OR_TLS})", description="Its submission prefix: https://, or http:// on loopback."
    )
    vkey: str = Field(max_length=256, description="Its public key, a C2SP vkey for cosignature/v1.")

    @field_validator("vkey")
    @classmethod
    def _usable(cls, vkey: str) -> str:
        try:
            key = CosignerKey.parse(vkey)
        except NoteError as error:
            raise ValueError(str(error)) from None
        if identifier(key.name) != key.name:
            raise ValueError("the name in the key may hold letters, digits and _.:@/- only")
        return key.text


class LogSection(Section):
    """Who signs the log besides its first key."""

    key_overlap_h: int = Field(
        168, ge=1, le=8_760, description="How long the old signing key signs beside a new one, hours."
    )
    quorum: int | None = Field(
        None, ge=0, description="How many witnesses must have cosigned, for policy files and readiness; none = all."
    )
    witness_every_s: float = Field(60.0, ge=1, le=86_400, description="Seconds between two questions to a witness.")
    witness: tuple[WitnessSection, ...] = Field((), max_length=16, description="The witnesses.")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        names = [one.name for one in self.witness]
        taken = next((name for name in names if names.count(name) > 1 or name in _RESERVED), None)
        if taken is not None:
            raise ValueError(f"witness: the name {taken} stands there twice, or is reserved")
        keys = [CosignerKey.parse(one.vkey).raw for one in self.witness]
        if len(set(keys)) != len(keys):
            raise ValueError("witness: two of them have the same key")
        if self.quorum is not None and self.quorum > len(self.witness):
            raise ValueError(f"quorum: there are {len(self.witness)} witnesses only")
        return self

    @property
    def threshold(self) -> int:
        """How many witnesses must have cosigned."""
        return len(self.witness) if self.quorum is None else self.quorum
