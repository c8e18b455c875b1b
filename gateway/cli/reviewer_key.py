"""The reviewer's own signing key: an Ed25519 key in a file only they may read. It never leaves this machine."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.cli.screen import Failed, Misconfigured
from gateway.core.signing import key_id

_PLACE = Path("ostiary") / "reviewer.pem"


@dataclass(frozen=True, slots=True)
class ReviewerKey:
    """An opened key.

    Attributes:
        public: raw public half, 32 bytes.
        id: what it is enrolled as.
    """

    private: Ed25519PrivateKey
    public: bytes
    id: str

    def sign(self, message: bytes) -> str:
        """The signature of ``message``, hex."""
        return self.private.sign(message).hex()


def default_path() -> Path:
    """Where the key is kept unless something else is said."""
    configured = os.environ.get("XDG_CONFIG_HOME")
    return (Path(configured) if configured else Path.home() / ".config") / _PLACE


def key_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--key``."""
    return click.option(
        "--key",
        "key_file",
        envvar="OSTIARY_REVIEWER_KEY",
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="Your signing key [~/.config/ostiary/reviewer.pem].",
    )(command)


def create(path: Path) -> ReviewerKey:
    """A new key in a new file of mode 0600.

    Raises:
        Failed: the file is there already, or cannot be written.
    """
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
    except FileExistsError:
        raise Failed(f"{path} is there already", "use it, or name another file with --key") from None
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}", "name another file with --key") from None
    return _opened(private)


def load(path: Path | None) -> ReviewerKey:
    """The key in ``path``, or in the usual place.

    Raises:
        Misconfigured: missing, readable by others, or no Ed25519 key.
    """
    path = path or default_path()
    try:
        mode = path.stat().st_mode
        pem = path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            f"your signing key {path} cannot be read: {error.strerror}", "`ostiary reviewer keygen` makes one"
        ) from None
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise Misconfigured(f"your signing key {path} can be read by others", f"chmod 600 {path}")
    try:
        private = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise Misconfigured(f"{path} is no Ed25519 key in PEM", "`ostiary reviewer keygen` makes one")
    return _opened(private)


def _opened(private: Ed25519PrivateKey) -> ReviewerKey:
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return ReviewerKey(private, public, key_id(public))
