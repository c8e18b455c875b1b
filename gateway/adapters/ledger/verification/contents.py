"""The part of verification that needs more than public keys: whether what is sealed can still be opened."""

import hmac
from collections.abc import Container

import msgspec

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.keyring.sealing import WRAPPED_SIZE, DataKey, PayloadKey, SealBroken, unseal, unwrap
from gateway.adapters.ledger.verification.report import Report


class SealedRef(msgspec.Struct, gc=False, rename={"length": "len"}):
    """What a leaf says of a payload, as far as verification needs it; see ``core.records.PayloadRef``."""

    commit: str
    ct_sha256: str
    dek: str
    length: int
    role: str


class Contents:
    """Holds data keys and payloads against what the leaves say of them.

    ``kek``: the key file's key, where it is at hand. ``deep``: open every payload, too.

    Attributes:
        opens: whether payloads are opened.
    """

    def __init__(self, db: Database, report: Report, kek: PayloadKey | None, *, deep: bool) -> None:
        self._report = report
        self._kek = kek
        self.opens = deep and kek is not None
        self._wrapped: dict[str, bytes] = dict(db.execute("select id, wrapped from deks"))
        # Each broken key is one finding, at the first record that needs it.
        self._seen: dict[str, DataKey | None] = {}

    @property
    def present(self) -> Container[str]:
        """The ids of the data keys that are there."""
        return self._wrapped

    def check_key(self, dek: str, index: int, record_id: str) -> None:
        """Note a finding where the data key is there and does not open."""
        if dek not in self._seen:
            self._seen[dek] = self._key(dek, index, record_id)

    def check_payload(self, ref: SealedRef, index: int, record_id: str, sealed: bytes) -> bytes | None:
        """Open the payload, if that was asked for, and note a finding where it is not what its leaf commits to.

        Returns:
            Its content, or None where it was not opened.
        """
        key = self._seen.get(ref.dek)
        if not self.opens or key is None:
            return None
        self._report.opened += 1
        try:
            content = unseal(key, record_id, ref.role, sealed)
        except SealBroken as error:
            self._report.add(index, record_id, str(error))
            return None
        if len(content) != ref.length or not hmac.compare_digest(key.commit.digest(content).hex(), ref.commit):
            self._report.add(index, record_id, f"the {ref.role} payload is not the one the record commits to")
        return content

    def _key(self, dek: str, index: int, record_id: str) -> DataKey | None:
        wrapped = self._wrapped.get(dek)
        if wrapped is None:
            return None  # erased or lost: that is for who has seen all records to say
        if len(wrapped) != WRAPPED_SIZE:
            self._report.add(index, record_id, f"the data key {dek} was altered: its payloads cannot be read any more")
        elif self._kek is not None:
            try:
                return unwrap(self._kek, dek, wrapped)
            except SealBroken as error:
                self._report.add(index, record_id, f"{error}: it was altered, or payload.kek is another one")
        return None
