"""Bundles and the real OPA: it takes what is built and signed here, and what it builds and signs is taken here."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.adapters.rego import layers
from gateway.adapters.rego.bundles import archive, building
from gateway.core.bundle import BundleError
from tests import opa

DESK = (
    'package gateway.policies.desk\n\ndeny contains {"id": "desk.no", "msg": "no"} if input.args.no == data.house.no\n'
)
DATA = '{"house": {"no": 1.50, "\u00e9<\u2028>": [9007199254740993, null, true, "\\u0001\\n/"]}}'
ALGORITHMS: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
}
NEW_NAME: dict[str, Any] = {"Ed25519": ed25519.Ed25519PrivateKey.generate()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A layer with numbers, names and characters that are easily written otherwise."""
    place = tmp_path / "desk"
    place.mkdir()
    (place / "desk.rego").write_text(DESK)
    (place / "data.json").write_text(DATA)
    return place


def keys(folder: Path, algorithm: str) -> tuple[Path, Path]:
    """Files of a private key and its public half."""
    key = (ALGORITHMS | NEW_NAME)[algorithm]
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def ran(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """OPA's answer."""
    command = [str(opa.required()), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_opa_takes_what_is_signed_here(folder: Path, tmp_path: Path, algorithm: str) -> None:
    """It checks the signature, and refuses the archive when it was altered."""
    private, public = keys(tmp_path, algorithm)
    packed = tmp_path / "desk.tar.gz"
    packed.write_bytes(building.signed(building.layer_archive(folder), private.read_bytes(), "k"))
    options = ("--verification-key", public, "--verification-key-id", "k", "--signing-alg", algorithm)
    build = ("build", "--output", tmp_path / "out.tar.gz", *options, "--bundle")
    assert (found := ran(*build, packed)).returncode == 0, found.stderr
    (folder / "data.json").write_text(DATA.replace("1.50", "1.51"))
    whole = archive.read("b", packed.read_bytes())
    packed.write_bytes(archive.write(whole | {"data.json": (folder / "data.json").read_bytes()}))
    assert "digest mismatch" in ran(*build, packed).stdout


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_opa_signs_is_taken_here(folder: Path, tmp_path: Path, algorithm: str) -> None:
    """A bundle that ``opa build`` made, with its roots; altered it is refused."""
    private, public = keys(tmp_path, algorithm)
    (folder / ".manifest").write_text('{"revision": "7", "roots": ["gateway/policies/desk", "house"]}')
    packed = tmp_path / "desk.tar.gz"
    options = ("--signing-key", private, "--signing-alg", algorithm, "--output", packed)
    assert (found := ran("build", *options, "--bundle", folder)).returncode == 0, found.stderr
    layer = layers.read(packed, public.read_bytes())
    assert layer.manifest is not None
    assert layer.manifest.revision == "7"
    bundle = layers.joined([layers.read(layers.shipped()), layer])
    assert json.loads(bundle.data)["house"]["no"] == 1.5
    whole = archive.read("b", packed.read_bytes())
    packed.write_bytes(archive.write(whole | {"data.json": b"{}"}))
    with pytest.raises(BundleError, match=r"data\.json is not what was signed"):
        layers.read(packed, public.read_bytes())


def test_opa_serves_the_whole_bundle(tmp_path: Path) -> None:
    """The archive of all that a gateway serves answers in OPA under the gateway's own revision."""
    packed = tmp_path / "all.tar.gz"
    bundle = layers.load([layers.shipped()])
    packed.write_bytes(building.bundle_archive(bundle))
    answer = ran("eval", "--bundle", packed, "--format", "raw", "data.gateway.main.decision.deny")
    assert (answer.returncode, json.loads(answer.stdout)) == (0, {"approval": [], "authz": [], "limits": []})
    assert json.loads(ran("inspect", "--format", "json", packed).stdout)["manifest"]["revision"] == bundle.revision
