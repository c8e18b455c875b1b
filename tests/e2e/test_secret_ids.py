"""A secret id that is replaced at a real OpenBao: each state that a kill may leave on disk, and logins meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.servers.erp import Erp
from gateway.adapters.clock import SystemClock
from gateway.adapters.vault import Access, Address, VaultClient
from gateway.adapters.vault.secret_ids import SecretIdRotation
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from tests.e2e.test_rotation import lets_in, own_secret_id, servers

__all__ = ["servers"]


@asynccontextmanager
async def rotation(servers: Erp, file: Path) -> AsyncIterator[SecretIdRotation]:
    """What replaces the secret id in ``file``."""
    access = Access(lambda: file.read_text("utf-8"), "ostiary-gateway")
    async with VaultClient(Address(servers.openbao.address), access, KnownValues(), SystemClock()) as client:
        yield SecretIdRotation(client, "approle/role/ostiary", file, 24)


def put(path: Path, secret: str) -> str:
    """Write a file."""
    path.write_text(secret, "utf-8")
    return secret


def names(folder: Path) -> list[str]:
    """What lies there."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("linked", [False, True])
async def test_a_kill_before_the_swap_leaves_the_old_one_in_force(servers: Erp, tmp_path: Path, linked: bool) -> None:
    """The one that was never used is destroyed, also where the old one had its second name already."""
    file = tmp_path / "id"
    old, fresh = put(file, own_secret_id(servers)), put(tmp_path / "id.next", own_secret_id(servers))
    if linked:
        (tmp_path / "id.old").hardlink_to(file)
    async with rotation(servers, file) as room:
        await room.settle()
    assert (names(tmp_path), lets_in(servers, old), lets_in(servers, fresh)) == (["id"], True, False)


async def test_a_kill_after_the_swap_leaves_the_new_one_in_force(servers: Erp, tmp_path: Path) -> None:
    """The old one is destroyed by the next start."""
    file = tmp_path / "id"
    new, old = put(file, own_secret_id(servers)), put(tmp_path / "id.old", own_secret_id(servers))
    async with rotation(servers, file) as room:
        await room.settle()
    assert (names(tmp_path), lets_in(servers, new), lets_in(servers, old)) == (["id"], True, False)


async def test_half_a_file_keeps_nothing_from_going_on(servers: Erp, tmp_path: Path) -> None:
    """Killed while writing: what is there is no secret id, and the next rotation takes another."""
    file = tmp_path / "id"
    put(file, own_secret_id(servers))
    put(tmp_path / "id.next", "8e1f")
    async with rotation(servers, file) as room:
        await room.rotate()
    assert names(tmp_path) == ["id"]
    assert lets_in(servers, file.read_text("utf-8"))


async def test_logins_meanwhile_are_let_in(servers: Erp, tmp_path: Path) -> None:
    """A client that logs in anew for each request, through five rotations: never refused."""
    file = tmp_path / "id"
    put(file, own_secret_id(servers))
    async with rotation(servers, file) as room:
        done = asyncio.Event()

        async def ask() -> int:
            times = 0
            while not done.is_set():
                room._client._token_until = 0.0
                await room._client.ping()
                times += 1
            return times

        asking = [asyncio.create_task(ask()) for _ in range(3)]
        for _ in range(5):
            await room.rotate()
        done.set()
        assert all([await one for one in asking])


async def test_a_file_that_cannot_be_written_changes_nothing(servers: Erp, tmp_path: Path) -> None:
    """A folder in the place of the next file: the one in force stays, and works."""
    file = tmp_path / "id"
    old = put(file, own_secret_id(servers))
    async with rotation(servers, file) as room:
        room._next = tmp_path / "nowhere" / "id.next"
        with pytest.raises(Unavailable, match="cannot be written"):
            await room.rotate()
    assert (file.read_text("utf-8"), lets_in(servers, old)) == (old, True)
