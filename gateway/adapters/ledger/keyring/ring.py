"""The private halves of the log's signing keys, and which of them sign, as the log's records say.

The records decide, the files only hold: one whose key no record names was never used, one of a retired key is removed
when the log opens. So a rotation that is killed between any two steps has either happened or not. What was never used
stays where it is: should this be an older copy of the log, the right one needs that key.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.ledger.keyring.key_files import (
    LOG_KEY,
    StateRefused,
    file_name,
    remove,
    sync_folder,
    write_signer,
)
from gateway.core.log_keys import KeyHistory
from gateway.core.tlog import Checkpoint, Signer, VerifierKey

_LOG = logging.getLogger("gateway.ledger")
Learn = Callable[[bytes], None]


class KeyMissing(StateRefused):
    """The private half of a key in force is not here.

    Attributes:
        key: which one.
        name: of its file.
    """

    def __init__(self, key: VerifierKey, path: Path) -> None:
        """``path``: where it should be."""
        super().__init__(
            f"the log is signed by a key that is not here: copy {path.name} from the folder keys of another gateway on "
            f"this log, or restore {path} from a backup"
        )
        self.key = key
        self.name = path.name


def nothing(secret: bytes) -> None:
    """Tell nobody of a key."""


class KeyRing:
    """Signs what the keys in force must sign. Whoever writes changes it, others read, or add what signs later.

    Attributes:
        history: as the committed records say.
        learn: to be told of the file of each key that comes, before it is written; of the event loop's thread.
    """

    def __init__(self, folder: Path, first: VerifierKey, signers: Iterable[Signer]) -> None:
        """``signers`` are those whose files are in ``folder``."""
        self.history = KeyHistory.begun(first)
        self.learn: Learn = nothing
        self._folder = folder
        self._signers = {signer.key.text: signer for signer in signers}
        self._latest: tuple[tuple[VerifierKey, ...], tuple[Signer, ...]] = (), ()

    @property
    def newest(self) -> Signer:
        """The key that was added last; it takes part in every signature."""
        found = self._signers.get(self.history.newest.key.text)
        return found or next(iter(self._signers.values()))

    def settle(self, history: KeyHistory) -> None:
        """Take over what records say.

        Raises:
            KeyMissing: the private half of a key in force is not here.
        """
        for reign in history.in_force:
            if not self.has(reign.key):
                name = LOG_KEY if reign.key == history.first else file_name(reign.key)
                raise KeyMissing(reign.key, self._folder / name)
        self.history = history
        known = {reign.key.text for reign in history.reigns}
        strays = [signer.key.id.hex() for text, signer in self._signers.items() if text not in known]
        if strays:
            _LOG.warning(
                "signing keys are here that the log does not name (%s): a rotation was cut off, or an older copy of "
                "the log was put in place",
                ", ".join(strays),
            )

    def has(self, key: VerifierKey) -> bool:
        """Whether the private half of ``key`` is here."""
        return key.text in self._signers

    def sign(self, checkpoint: Checkpoint, history: KeyHistory) -> str:
        """The note of ``checkpoint``, signed by each key that ``history`` wants for its size."""
        keys = history.signing(checkpoint.size)
        if keys != self._latest[0]:  # the same for nearly every batch, and a key's text takes longer than its line
            self._latest = keys, tuple(self._signers[key.text] for key in keys)
        text = checkpoint.text
        return f"{text}\n{''.join(signer.line(text) for signer in self._latest[1])}"

    def take(self, private: Ed25519PrivateKey) -> Signer:
        """Keep a key that is to sign once a record says so; its file is in place when this returns.

        Raises:
            StateRefused: it cannot be written.
        """
        signer = Signer(self.history.first.name, private)
        write_signer(self._folder, private, signer)
        self._signers[signer.key.text] = signer
        return signer

    def drop(self, key: VerifierKey) -> None:
        """Forget a key that no record names, and remove its file.

        Raises:
            OSError: it cannot be removed.
        """
        if key not in [reign.key for reign in self.history.reigns]:
            self._signers = {text: signer for text, signer in self._signers.items() if text != key.text}
            (self._folder / file_name(key)).unlink(missing_ok=True)
            sync_folder(self._folder)

    @property
    def holds_retired(self) -> bool:
        """Whether the private half of a key that was retired is here."""
        return any(reign.until is not None and self.has(reign.key) for reign in self.history.reigns)

    def prune(self) -> None:
        """Forget keys that were retired, and remove their files."""
        retired = [reign.key for reign in self.history.reigns if reign.until is not None]
        ended = {key.text for key in retired}
        self._signers = {text: signer for text, signer in self._signers.items() if text not in ended}
        try:
            gone = remove(self._folder, self.history.first, retired)
        except OSError as error:
            _LOG.warning("the file of a retired signing key cannot be removed: %s", error.strerror)
            return
        if gone:
            _LOG.info("signing keys that were retired are removed: %s", ", ".join(gone))
