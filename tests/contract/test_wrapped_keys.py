"""The key of payloads, wrapped by a vault: a real OpenBao, and what a kill or a wrong key leaves."""

import os
import secrets
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy.servers.openbao import OpenBao, Request, openbao
from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.keyring.keys import (
    LOG_VKEY,
    PAYLOAD_KEK,
    PSEUDONYM_KEY,
    WRAPPED_KEK,
    LogKeys,
    create_or_load,
)
from gateway.adapters.ledger.keyring.wrapped_keys import create_or_unwrap
from gateway.adapters.vault import Access, Address, VaultClient
from gateway.adapters.vault.transit import Transit
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.core.wrapping import KeyWrapper
from gateway.parts.unlocking import log_keys
from gateway.settings import SettingsError
from gateway.settings import file as settings_file
from tests.ledgers import ORIGIN

SECRET = secrets.token_hex(24)
PATHS = ("encrypt", "decrypt")
POLICY = "".join(f'path "transit/{act}/payloads" {{ capabilities = ["update"] }}\n' for act in PATHS)


@dataclass(slots=True)
class FakeWrapper:
    """Turns the key round, and remembers what it was asked; ``broken`` opens everything to this."""

    name: str = "the fake vault"
    asked: list[str] = field(default_factory=list)
    broken: bytes | None = None

    async def wrap(self, key: bytes, context: str) -> str:
        """Reversed, in hex, with the context."""
        self.asked.append("wrap")
        return f"vault:{key[::-1].hex()}:{context}"

    async def unwrap(self, wrapped: str, context: str) -> bytes:
        """What was wrapped."""
        self.asked.append("unwrap")
        _, key, bound = wrapped.split(":")
        if bound != context:
            raise Unavailable("of another log", cause_code="vault")
        return bytes.fromhex(key)[::-1] if self.broken is None else self.broken


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    """A vault with a transit key, and an AppRole that may use it for nothing but wrapping."""
    role: dict[str, Any] = {"token_policies": ["wrapper"], "token_no_default_policy": True}
    with openbao(
        [
            Request("approle", "sys/auth/approle", {"type": "approle"}),
            Request("transit", "sys/mounts/transit", {"type": "transit"}),
            Request("payloads", "transit/keys/payloads", {"type": "aes256-gcm96"}),
            Request("others", "transit/keys/others", {"type": "aes256-gcm96"}),
            Request("policy", "sys/policies/acl/wrapper", {"policy": POLICY}),
            Request("role", "auth/approle/role/wrapper", role),
            Request("role-id", "auth/approle/role/wrapper/role-id", {"role_id": "wrapper"}),
            Request("role-key", "auth/approle/role/wrapper/custom-secret-id", {"secret_id": SECRET}),
        ]
    ) as running:
        yield running


@pytest.fixture
async def client(bao: OpenBao) -> AsyncIterator[VaultClient]:
    """The vault, as the gateway is let in."""
    access = Access(lambda: SECRET, "wrapper")
    async with VaultClient(Address(url=bao.address), access, KnownValues(), SystemClock()) as vault:
        yield vault


@pytest.fixture(params=["fake", "openbao"])
def wrapper(request: pytest.FixtureRequest) -> KeyWrapper:
    """What wraps keys."""
    if request.param == "fake":
        return FakeWrapper()
    return Transit(request.getfixturevalue("client"), "transit", "payloads")


def names(folder: Path) -> set[str]:
    """The key files."""
    return {path.name for path in folder.iterdir()}


async def test_a_first_start_leaves_no_plain_key(tmp_path: Path, wrapper: KeyWrapper) -> None:
    """The wrapped one is there, readable by its owner only; it opens to the same key, for this log alone."""
    keys = await create_or_unwrap(tmp_path, ORIGIN, wrapper)
    assert names(tmp_path) == {"log.pem", LOG_VKEY, PSEUDONYM_KEY, WRAPPED_KEK}
    assert (tmp_path / WRAPPED_KEK).stat().st_mode & 0o777 == 0o600
    assert keys.kek.newest not in (tmp_path / WRAPPED_KEK).read_bytes()
    again = await create_or_unwrap(tmp_path, ORIGIN, wrapper)
    assert (again.kek, again.name.text) == (keys.kek, keys.name.text)
    with pytest.raises(Unavailable):
        await wrapper.unwrap((tmp_path / WRAPPED_KEK).read_text(), "gateway.other/log")


async def test_a_plain_key_is_wrapped_and_removed(tmp_path: Path, wrapper: KeyWrapper) -> None:
    """A log that began without a vault goes on with one; payloads stay readable, as the key is the same."""
    keys = create_or_load(tmp_path, ORIGIN)
    assert (await create_or_unwrap(tmp_path, ORIGIN, wrapper)).kek == keys.kek
    assert PAYLOAD_KEK not in names(tmp_path)
    with pytest.raises(StateRefused, match="vault_key"):
        create_or_load(tmp_path, ORIGIN)


async def test_a_kill_on_the_way_is_taken_up(tmp_path: Path) -> None:
    """Half written, written beside, in place with the plain one still there: the next start ends it; same key."""
    keys, fake = create_or_load(tmp_path, ORIGIN), FakeWrapper()
    wrapped = await fake.wrap(keys.kek.newest, ORIGIN)
    for name, text in ((f"{WRAPPED_KEK}.new", wrapped), (WRAPPED_KEK, wrapped)):
        (tmp_path / PAYLOAD_KEK).write_bytes(keys.kek.newest)
        (tmp_path / PAYLOAD_KEK).chmod(0o600)
        (tmp_path / WRAPPED_KEK).unlink(missing_ok=True)
        (tmp_path / name).write_text(text)
        assert create_or_load(tmp_path, ORIGIN).kek == keys.kek
        assert (await create_or_unwrap(tmp_path, ORIGIN, fake)).kek == keys.kek
        assert names(tmp_path) == {"log.pem", LOG_VKEY, PSEUDONYM_KEY, WRAPPED_KEK}


async def test_a_kill_in_the_middle_of_writing_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the wrapped key is on disk: the next start wraps it again, and one without a vault starts as well."""
    keys, fake = create_or_load(tmp_path, ORIGIN), FakeWrapper()

    def killed(descriptor: int) -> None:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(SystemExit):
            await create_or_unwrap(tmp_path, ORIGIN, fake)
    assert create_or_load(tmp_path, ORIGIN).kek == keys.kek
    assert (await create_or_unwrap(tmp_path, ORIGIN, fake)).kek == keys.kek
    assert names(tmp_path) == {"log.pem", LOG_VKEY, PSEUDONYM_KEY, WRAPPED_KEK}


async def test_keys_that_are_put_in_place_stay_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is made durable after the last file has its name: what signs later is not lost with the power."""
    seen: list[set[str]] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            seen.append(names(tmp_path))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    create_or_load(tmp_path, ORIGIN)
    assert seen[-1] == names(tmp_path) == {"log.pem", LOG_VKEY, PSEUDONYM_KEY, PAYLOAD_KEK}


async def test_another_key_is_never_taken(tmp_path: Path) -> None:
    """A vault that opens to something else, a plain file of another key, a lost file: refused, nothing is removed."""
    keys, fake = await create_or_unwrap(tmp_path, ORIGIN, FakeWrapper()), FakeWrapper(broken=b"short")
    with pytest.raises(StateRefused, match="something else"):
        await create_or_unwrap(tmp_path, ORIGIN, fake)
    (tmp_path / PAYLOAD_KEK).write_bytes(bytes(32))
    (tmp_path / PAYLOAD_KEK).chmod(0o600)
    with pytest.raises(StateRefused, match="another key"):
        await create_or_unwrap(tmp_path, ORIGIN, FakeWrapper())
    (tmp_path / PAYLOAD_KEK).unlink()
    kept = (tmp_path / WRAPPED_KEK).read_bytes()
    (tmp_path / WRAPPED_KEK).unlink()
    with pytest.raises(StateRefused, match="restore"):
        await create_or_unwrap(tmp_path, ORIGIN, FakeWrapper())
    (tmp_path / WRAPPED_KEK).write_bytes(kept)
    assert (await create_or_unwrap(tmp_path, ORIGIN, FakeWrapper())).kek == keys.kek
    plain = create_or_load(tmp_path / "plain", ORIGIN)
    with pytest.raises(StateRefused, match="nothing was changed"):
        await create_or_unwrap(tmp_path / "plain", ORIGIN, FakeWrapper(broken=bytes(32)))
    assert create_or_load(tmp_path / "plain", ORIGIN).kek == plain.kek


def configured(folder: Path, bao: OpenBao, key: str = "payloads") -> Any:
    """Settings with the vault."""
    text = f"""
state = "state"
[vault]
address = "{bao.address}"
role_id = "wrapper"
secret_id = {{ file = "secret" }}
[audit]
vault_key = "{key}"
"""
    (folder / "gateway.toml").write_text(text)
    (folder / "secret").write_text(SECRET)
    return settings_file.load(folder / "gateway.toml")


async def test_the_gateway_opens_its_keys_with_the_vault(tmp_path: Path, bao: OpenBao) -> None:
    """As its settings say; a key it may not use is refused, and a vault that is not there is named."""
    settings = configured(tmp_path, bao)
    keys = await log_keys(settings, KnownValues(), SystemClock())
    assert isinstance(keys, LogKeys)
    assert WRAPPED_KEK in names(tmp_path / "state" / "keys")
    assert (await log_keys(settings, KnownValues(), SystemClock())).kek == keys.kek
    with pytest.raises(Unavailable, match="refuses"):
        await log_keys(configured(tmp_path, bao, "others"), KnownValues(), SystemClock())
    (tmp_path / "gateway.toml").write_text((tmp_path / "gateway.toml").read_text().replace(bao.address, "unix:///no"))
    with pytest.raises(Unavailable):
        await log_keys(settings_file.load(tmp_path / "gateway.toml"), KnownValues(), SystemClock())


def test_a_vault_key_needs_a_vault(tmp_path: Path) -> None:
    """Said by the settings' names."""
    (tmp_path / "gateway.toml").write_text('state = "state"\n[audit]\nvault_key = "x"\n')
    with pytest.raises(SettingsError, match=r"audit\.vault_key"):
        settings_file.load(tmp_path / "gateway.toml")
