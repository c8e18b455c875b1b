"""Sources of policy against real folders and a real web server: what changed is seen, what is no good is not taken."""

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from pydantic import ValidationError

from gateway.adapters.rego import layers
from gateway.adapters.rego.bundles import building
from gateway.adapters.rego.bundles.sources import HttpSource, PathSource
from gateway.core.bundle import BundleError
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.parts.policy_sources import Sources
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.policy import PolicySection, PolicySourceSection
from tests.clock import StepClock
from tests.fakes import web
from tests.fakes.web import Exchange, Web
from tests.rego_demo import until
from tests.unit.test_bundle_signatures import pair

PRIVATE, PUBLIC = pair("p256")


def written(folder: Path, limit: int) -> Path:
    """A folder of policy whose data say ``limit``."""
    folder.mkdir(exist_ok=True)
    (folder / "desk.rego").write_text("package gateway.policies.desk\n")
    (folder / "data.json").write_text(json.dumps({"house": {"desk": limit}}))
    return folder


def packed(folder: Path, limit: int, key: bytes = PRIVATE) -> bytes:
    """The folder as a signed archive."""
    return building.signed(building.layer_archive(written(folder, limit)), key, "k")


async def test_a_folder_is_read_again_when_a_file_changes(tmp_path: Path) -> None:
    """Written, added, taken away; and not otherwise."""
    source = PathSource(written(tmp_path / "desk", 1))
    first = await source.look()
    assert first is not None
    assert await source.look() is None
    written(tmp_path / "desk", 22)
    second = await source.look()
    assert second is not None
    assert second.files["data.json"] != first.files["data.json"]
    (tmp_path / "desk" / "more.rego").write_text("package house.more\n")
    assert (third := await source.look()) is not None
    assert "more.rego" in third.files
    (tmp_path / "desk" / "more.rego").unlink()
    assert (fourth := await source.look()) is not None
    assert fourth.files == second.files


async def test_an_edit_that_sets_the_time_back_is_seen(tmp_path: Path) -> None:
    """As a copy that keeps times and happens to have the same size."""
    source = PathSource(written(tmp_path / "desk", 1))
    assert await source.look() is not None
    path = tmp_path / "desk" / "data.json"
    before = path.stat()
    await until(lambda: _later(tmp_path / "clock", before.st_ctime_ns))
    path.write_text(path.read_text().replace("1", "2"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await source.look() is not None


def _later(file: Path, than_ns: int) -> bool:
    file.touch()  # by the clock of the file system, which is a coarse one
    return file.stat().st_ctime_ns > than_ns


async def test_a_folder_that_is_being_written_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes while it is read is refused, and read again at the next look."""
    source = PathSource(written(tmp_path / "desk", 1))
    read = layers.read

    def meddled(path: Path, key: bytes | None = None) -> layers.Layer:
        layer = read(path, key)
        (path / "desk.rego").write_text("package gateway.policies.desk\n\nx := 1\n")
        return layer

    with monkeypatch.context() as meddling:
        meddling.setattr(layers, "read", meddled)
        with pytest.raises(BundleError, match="is being changed"):
            await source.look()
    assert await source.look() is not None


async def test_a_broken_folder_is_refused_until_it_is_mended(tmp_path: Path) -> None:
    """It is said as long as it is so, and read again when it changes."""
    source = PathSource(written(tmp_path / "desk", 1))
    (tmp_path / "desk" / "data.json").write_text("{")
    layer = await source.look()
    assert layer is not None  # what is wrong inside a file is found when the layers are joined
    (tmp_path / "desk" / "desk.rego").unlink()
    (tmp_path / "desk" / "desk.rego").symlink_to("/etc/hostname")
    for _ in range(3):
        with pytest.raises(BundleError, match="leads out of the bundle"):
            await source.look()
    (tmp_path / "desk" / "desk.rego").unlink()
    assert await source.look() is not None


@asynccontextmanager
async def served(tmp_path: Path, token: Callable[[], str] | None = None) -> AsyncIterator[tuple[Web, HttpSource]]:
    """A web server and the source that asks it."""
    async with web.serving() as there:
        url = f"{there.origin}/desk.tar.gz"
        kept = tmp_path / "kept" / "desk.tar.gz"
        yield there, HttpSource("desk", url, PUBLIC, kept, aiohttp.ClientSession, token)


def giving(there: Web, content: bytes, etag: str = '"1"', status: str = "200 OK") -> None:
    """From now on answer with this content, or that it is the one at hand."""

    async def play(exchange: Exchange) -> None:
        if exchange.field("if-none-match") == [etag]:
            await exchange.answer("304 Not Modified", b"", f"ETag: {etag}")
        else:
            await exchange.answer(status, content, f"ETag: {etag}")

    there.play = play


async def test_an_address_is_asked_with_the_tag_of_what_is_at_hand(tmp_path: Path) -> None:
    """Nothing new costs no transfer; something new is taken."""
    async with served(tmp_path, lambda: "s3cret") as (there, source):
        giving(there, packed(tmp_path / "desk", 1))
        assert await source.look() is not None
        assert await source.look() is None
        giving(there, packed(tmp_path / "desk", 2), '"2"')
        assert (layer := await source.look()) is not None
        assert json.loads(layer.files["data.json"]) == {"house": {"desk": 2}}
        tags = [exchange.field("if-none-match") for exchange in there.exchanges]
        assert tags == [[], ['"1"'], ['"1"']]
        assert there.exchanges[0].field("authorization") == ["Bearer s3cret"]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"no archive", "200 OK", "not a bundle"),
        (b"", "200 OK", "cut short"),
        (b"", "404 Not Found", "answers 404"),
        (b"", "302 Found", "answers 302"),
        (None, "200 OK", "has no .signatures.json"),
        (pair("p256")[0], "200 OK", "is no good"),
    ],
)
async def test_what_is_no_good_is_refused_and_asked_for_again(
    tmp_path: Path, content: bytes | None, status: str, words: str
) -> None:
    """Garbage, an error, a redirect, unsigned, signed by somebody else; then the good one is taken."""
    async with served(tmp_path) as (there, source):
        giving(there, packed(tmp_path / "desk", 1))
        assert await source.look() is not None
        bad = building.layer_archive(written(tmp_path / "desk", 2)) if content is None else content
        if bad.startswith(b"-----"):
            bad = packed(tmp_path / "desk", 2, bad)
        giving(there, bad, '"2"', status)
        for _ in range(2):
            with pytest.raises(BundleError, match=words):
                await source.look()
        giving(there, packed(tmp_path / "desk", 3), '"3"')
        assert await source.look() is not None


async def test_what_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A server that never stops sending is left."""
    async with served(tmp_path) as (there, source):

        async def flood(exchange: Exchange) -> None:
            await exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await exchange.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")

        there.play = flood
        with pytest.raises(BundleError, match="no earlier policy of it was kept"):
            await source.look()
        giving(there, packed(tmp_path / "desk", 1))
        assert await source.look() is not None
        there.play = flood
        with pytest.raises(BundleError, match="more than 16777216 bytes"):
            await source.look()


async def test_what_was_good_once_is_there_when_the_address_is_not(tmp_path: Path) -> None:
    """At the next start, too; but not when the copy was altered."""
    async with served(tmp_path) as (there, source):
        giving(there, packed(tmp_path / "desk", 7))
        assert (fresh := await source.look()) is not None
    with pytest.raises(BundleError, match="cannot be reached"):
        await source.look()
    assert source.kept is not None
    again = HttpSource("desk", source.url, PUBLIC, source.kept, aiohttp.ClientSession)
    assert (copy := await again.look()) is not None
    assert copy.files == fresh.files
    assert "cannot be reached" in again.behind[0]
    source.kept.write_bytes(packed(tmp_path / "desk", 8, pair("p256")[0]))
    with pytest.raises(BundleError, match="is no good"):
        await HttpSource("desk", source.url, PUBLIC, source.kept, aiohttp.ClientSession).look()


async def test_an_archive_is_taken_as_it_is_sent(tmp_path: Path) -> None:
    """A server that calls the archive's own compression an encoding serves the same archive."""
    async with served(tmp_path) as (there, source):
        content = packed(tmp_path / "desk", 1)

        async def play(exchange: Exchange) -> None:
            await exchange.answer("200 OK", content, "Content-Encoding: gzip")

        there.play = play
        assert await source.look() is not None
        assert there.exchanges[0].field("accept-encoding") == ["identity"]


async def test_what_cannot_be_kept_or_asked_for_is_a_problem_of_its_source(tmp_path: Path) -> None:
    """And of no other: a full disk, a copy that cannot be read, a token that is gone."""

    def gone() -> str:
        raise Unavailable("policy.sources.desk.token is missing or empty", cause_code="credential")

    async with served(tmp_path) as (there, source):
        giving(there, packed(tmp_path / "desk", 1))
        assert source.kept is not None
        source.kept.with_suffix(".new").mkdir(parents=True)
        with pytest.raises(BundleError, match="cannot be written"):
            await source.look()
        source.kept.with_suffix(".new").rmdir()
        assert await source.look() is not None
        source.token = gone
        with pytest.raises(BundleError, match="token is missing"):
            await source.look()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    """As the key is: by its place in the settings, before anything is fetched."""
    (tmp_path / "key.pem").write_bytes(PUBLIC)
    authority = tmp_path / "ca.pem"
    if content is not None:
        authority.write_text(content)
    desk = PolicySourceSection(
        url="https://127.0.0.1:9/desk.tar.gz", public_key=tmp_path / "key.pem", ca_certificate=authority
    )
    settings = GatewaySettings(state=tmp_path / "state", policy=PolicySection(sources={"desk": desk}))
    with pytest.raises(SettingsError, match=r"policy\.sources\.desk\.ca_certificate: "):
        Sources(settings, KnownValues(), StepClock())


def test_an_address_holds_no_password() -> None:
    """It is shown, logged and put on record as it is; what is secret goes into ``token``."""
    with pytest.raises(ValidationError, match="url"):
        PolicySourceSection(url="https://me:pw@policy.example/desk.tar.gz", public_key=Path("key.pem"))
