"""The key of the key file, kept wrapped by a vault: on disk it cannot be read, and without the vault no payload can.

The vault is asked when the gateway starts and not again, so no call waits for it. A plain key file that is still there
is wrapped, proven to open again, and removed: whoever is killed on the way has the plain file, or both, or the wrapped
one, and the next start goes on from there.
"""

import os
from dataclasses import replace
from pathlib import Path

from gateway.adapters.ledger.keyring.key_files import StateRefused, sync_folder, write_durably
from gateway.adapters.ledger.keyring.keys import (
    KEY_SIZE,
    NEXT_KEK,
    PAYLOAD_KEK,
    WRAPPED_KEK,
    LogKeys,
    Secret,
    load,
    make,
    read_symmetric,
)
from gateway.core.wrapping import KeyWrapper


async def create_or_unwrap(folder: Path, origin: str, wrapper: KeyWrapper) -> LogKeys:
    """The keys in ``folder``, as ``keys.create_or_load`` makes or loads them, with the payloads' key wrapped.

    Raises:
        StateRefused: some are missing, malformed, readable by others, or of another origin; or the wrapped key is of
            another log.
        Unavailable: the vault is not there, or refuses.
    """
    if (folder / NEXT_KEK).exists():
        raise StateRefused(f"{folder / PAYLOAD_KEK} is being replaced: start once without [audit] vault_key")
    if not (folder / PAYLOAD_KEK).exists() and not (folder / WRAPPED_KEK).exists():
        kek = os.urandom(KEY_SIZE)
        are_new = make(folder, origin, Secret(WRAPPED_KEK, (await wrapper.wrap(kek, origin)).encode()))
    else:
        are_new = make(folder, origin, None)
    if not (folder / WRAPPED_KEK).exists():
        await _wrap(folder, origin, wrapper)
    kek = await wrapper.unwrap(_text(folder / WRAPPED_KEK), origin)
    if len(kek) != KEY_SIZE:
        raise StateRefused(f"{wrapper.name} opens {folder / WRAPPED_KEK} to something else than a key")
    _remove_plain(folder, kek)
    return replace(load(folder, origin, kek), are_new=are_new)


async def _wrap(folder: Path, origin: str, wrapper: KeyWrapper) -> None:
    await wrap_anew(folder, origin, wrapper, read_symmetric(folder / PAYLOAD_KEK))


async def wrap_anew(folder: Path, origin: str, wrapper: KeyWrapper, kek: bytes) -> None:
    """Put ``kek`` in place as the vault wraps it now: whole, or what was there stays.

    Raises:
        StateRefused: it cannot be written, or the vault does not open what it has wrapped.
        Unavailable: the vault is not there, or refuses.
    """
    wrapped = await wrapper.wrap(kek, origin)
    if await wrapper.unwrap(wrapped, origin) != kek:
        raise StateRefused(f"{wrapper.name} does not open what it has wrapped: nothing was changed")
    # Not `.new`: that is taken for whole and put in place by the next start, and this may be cut off half written.
    beside = folder / f"{WRAPPED_KEK}.part"
    write_durably(beside, wrapped.encode(), 0o600)
    try:
        beside.rename(folder / WRAPPED_KEK)
        sync_folder(folder)
    except OSError as error:
        raise StateRefused(f"the key {folder / WRAPPED_KEK} cannot be written: {error.strerror}") from None


def _remove_plain(folder: Path, kek: bytes) -> None:
    path = folder / PAYLOAD_KEK
    if not path.exists():
        return
    if read_symmetric(path) != kek:
        raise StateRefused(f"{path} is another key than {folder / WRAPPED_KEK}: remove the one that is not this log's")
    try:
        path.unlink()
        sync_folder(folder)
    except OSError as error:
        raise StateRefused(f"the key {path} cannot be removed: {error.strerror}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateRefused(f"the key {path} cannot be read: {error}; restore it from a backup") from None
