"""Layers with manifests: each owns its part of ``data``, holds nothing else, and nobody else holds anything there."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.adapters.rego import layers
from gateway.adapters.rego.bundles import archive, building
from gateway.core.bundle import BundleError, Module, bundled

DESK = 'package gateway.policies.desk\n\ndeny contains {"id": "desk.no", "msg": "no"} if input.args.no\n'


def layer(folder: Path, name: str, manifest: object = None, **data: object) -> Path:
    """A layer with one package, perhaps data and a manifest."""
    place = folder / name
    place.mkdir()
    (place / "desk.rego").write_text(DESK.replace("desk", name))
    (place / "data.json").write_text(json.dumps(data))
    if manifest is not None:
        (place / ".manifest").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return place


def test_layers_that_keep_to_their_roots_go_together(tmp_path: Path) -> None:
    """Beside the shipped packages and one another."""
    one = layer(tmp_path, "one", {"roots": ["gateway/policies/one", "house/one"]}, house={"one": {"a": 1}})
    two = layer(tmp_path, "two", {"roots": ["gateway/policies/two", "house/two"]}, house={"two": 2})
    found = layers.load([layers.shipped(), one, two])
    assert json.loads(found.data) == {"house": {"one": {"a": 1}, "two": 2}}


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"roots": ["gateway/policies/one"]}, "one/data.json: data.house.x stands outside the roots of one/.manifest"),
        ({"roots": ["house"]}, "one/desk.rego: data.gateway.policies.one stands outside the roots"),
        ({"roots": ["gateway", "house"]}, r"shipped/.*: data.gateway\..* stands in what one/.manifest says it owns"),
        ({"revision": "7"}, "stands in what one/.manifest says it owns"),
        ({"roots": ["house", "house/x"]}, "roots house and house/x overlap"),
        ({"rego_version": 0}, "rego_version"),
        ({"wasm": []}, "wasm"),
        ({"roots": "house"}, "roots"),
        ("{", "one/.manifest: "),
        ("[" * 100_000, "one/.manifest: "),
    ],
)
def test_manifests_that_cannot_hold_are_refused(tmp_path: Path, manifest: object, words: str) -> None:
    """Outside its roots, inside another's, roots that overlap, and what no engine here can do."""
    with pytest.raises(BundleError, match=words):
        layers.load([layers.shipped(), layer(tmp_path, "one", manifest, house={"x": 1})])


def test_two_layers_may_not_own_the_same(tmp_path: Path) -> None:
    """The one that comes second is named."""
    one = layer(tmp_path, "one", {"roots": ["gateway/policies/one", "house"]}, house={"x": 1})
    two = layer(tmp_path, "two", {"roots": ["gateway/policies/two", "house/y"]}, house={"y": 1})
    with pytest.raises(BundleError, match=r"two/data\.json: data\.house\.y stands in what one/\.manifest says it owns"):
        layers.load([one, two])


def test_a_built_archive_is_the_same_layer(tmp_path: Path) -> None:
    """The same rules and data, tests left out, roots found; the same folder always makes the same archive."""
    folder = layer(tmp_path, "desk", None, house={"desk": {"limit": 3}, "all": [1]})
    (folder / "desk_test.rego").write_text("package gateway.tests.desk\n\ntest_it if true\n")
    packed = tmp_path / "desk.tar.gz"
    packed.write_bytes(building.layer_archive(folder))
    assert building.layer_archive(folder) == packed.read_bytes()
    manifest = json.loads(archive.read("b", packed.read_bytes())[".manifest"])
    assert manifest["roots"] == ["house/all", "house/desk", "gateway/policies/desk"]
    found, plain = layers.load([layers.shipped(), packed]), layers.load([layers.shipped(), folder])
    assert (found.data, {m.text for m in found.modules}) == (plain.data, {m.text for m in plain.modules})
    assert not found.tests[0].name.startswith("desk")


def test_a_signed_layer_needs_its_key(tmp_path: Path) -> None:
    """A signature that nobody checks would only look as if somebody did."""
    folder = layer(tmp_path, "desk")
    (folder / ".signatures.json").write_text("{}")
    with pytest.raises(BundleError, match="desk: is signed, and no public key is set"):
        layers.load([folder])


def test_a_pipe_is_no_policy(tmp_path: Path) -> None:
    """It is refused at once: nobody waits for somebody to write into it."""
    folder = layer(tmp_path, "desk")
    os.mkfifo(folder / "pipe.rego")
    with pytest.raises(BundleError, match=r"desk/pipe\.rego: no plain file"):
        layers.load([folder])


def test_a_folder_in_it_that_cannot_be_looked_into_is_no_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it forbids would be allowed without a word."""
    folder = layer(tmp_path, "desk")
    (folder / "strict").mkdir()
    real = os.scandir

    def closed(place: str) -> Iterator[os.DirEntry[str]]:
        if str(place).endswith("strict"):
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(BundleError, match="desk/strict: cannot be read: Permission denied"):
        layers.load([folder])


def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    """It is not followed, and leaving it out would look as if it were in force."""
    folder = layer(tmp_path, "desk")
    layer(tmp_path, "strict")
    (folder / "more").symlink_to(tmp_path / "strict")
    with pytest.raises(BundleError, match="desk/more: a linked folder would be left out"):
        layers.load([folder])


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    """With its name."""
    folder = layer(tmp_path, "desk")
    (folder / "round.rego").symlink_to("round.rego")
    with pytest.raises(BundleError, match=r"round\.rego: cannot be read"):
        layers.load([folder])


def test_two_files_of_one_name_are_refused() -> None:
    """Which of them would be served must not be a matter of order."""
    twice = [Module("desk/a.rego", "package a"), Module("desk/a.rego", "package b")]
    with pytest.raises(BundleError, match="two layers hold a Rego file of the same name"):
        bundled(twice, {})
