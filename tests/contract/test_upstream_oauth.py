"""``ostiary upstream oauth``: what a server says of tokens is shown, then written for good, and nothing by halves."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.root import ostiary
from gateway.settings.file import load
from tests.client_desk import Desk, furnished
from tests.fakes.granting import Granting, granting

CONFIG = """\
# mine
state = "state"

[vault]
address = "http://127.0.0.1:8200"
role_id = "ostiary-gateway"
secret_id = { env = "VAULT_SECRET_ID" }

[credentials.lister]
env = "LISTER"
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A gateway with a configuration of its own."""
    made = furnished(tmp_path)
    made.file("gateway.toml", CONFIG)
    return made


@pytest.fixture
def there() -> Iterator[Granting]:
    """A server and its authorization server."""
    with granting() as running:
        running.server["scopes_supported"] = ["read"]
        yield running


def ran(desk: Desk, there: Granting, *words: str, name: str = "hub") -> Result:
    """Add the server without being asked."""
    near = ["--allow-network", "127.0.0.0/8", "--config", str(config(desk))]
    yes = [] if "--dry-run" in words else ["--yes"]
    return CliRunner().invoke(ostiary, ["upstream", "oauth", name, there.mcp, *near, *yes, *words])


def config(desk: Desk) -> Path:
    """The settings file."""
    return desk.home.parent / "gateway.toml"


def test_what_was_found_out_is_pinned_in_the_settings(desk: Desk, there: Granting) -> None:
    """Issuer, resource, scopes and client; the secret has a file of its own, and stands nowhere else."""
    there.service["scopes_supported"] = ["offline_access"]
    done = ran(desk, there, "--discovery", "lister")
    assert done.exit_code == 0, done.output
    settings = load(config(desk))
    hub = settings.connections["hub"]
    assert (hub.issuer, hub.resource, hub.client_id, hub.client_auth) == (there.url, there.mcp, "made", "basic")
    assert (hub.scopes, hub.token_role) == (("read", "offline_access"), "hub-accounts")
    assert settings.leases["hub"].connection == "hub"
    upstream = settings.upstreams["hub"]
    assert upstream.model_dump()["url"] == there.mcp
    assert (upstream.model_dump()["credential"], upstream.model_dump()["discovery_credential"]) == ("hub", "lister")
    assert hub.client_secret is not None
    assert hub.client_secret.file is not None
    assert hub.client_secret.file.read_text("utf-8").strip() == "made-for-the-gateway"
    assert stat.S_IMODE(hub.client_secret.file.stat().st_mode) == 0o600
    assert config(desk).read_text("utf-8").startswith(CONFIG)
    assert "made-for-the-gateway" not in config(desk).read_text("utf-8") + done.output
    assert there.paths()[-1] == "/register"


def test_it_is_shown_before_anything_is_done(desk: Desk, there: Granting) -> None:
    """A dry run makes no client and no file; a no is a no."""
    before = config(desk).read_bytes()
    shown = ran(desk, there, "--dry-run")
    assert shown.exit_code == 0, shown.output
    for word in (there.mcp, f"{there.url}/authorize", f"{there.url}/token", "read", "http://127.0.0.1/callback/hub"):
        assert word in shown.output
    words = ["--allow-network", "127.0.0.0/8", "--config", str(config(desk))]
    asked = CliRunner().invoke(ostiary, ["upstream", "oauth", "hub", there.mcp, *words], input="n\n")
    assert asked.exit_code == 1
    assert config(desk).read_bytes() == before
    assert "/register" not in there.paths()


def test_a_client_that_was_made_by_hand_is_taken(desk: Desk, there: Granting) -> None:
    """Its secret stays where it is, and nothing is registered."""
    words = ["--client-id", "mine", "--client-secret-env", "HUB_SECRET", "--client-auth", "body"]
    assert ran(desk, there, *words).exit_code == 0
    hub = load(config(desk)).connections["hub"]
    assert (hub.client_id, hub.client_auth) == ("mine", "body")
    assert hub.client_secret is not None
    assert (hub.client_secret.env, hub.client_secret.file) == ("HUB_SECRET", None)
    assert "/register" not in there.paths()


def test_a_document_describes_a_client_without_a_secret(desk: Desk, there: Granting) -> None:
    """Where the authorization server takes them; what it must say is told."""
    address = "https://gateway.example/client.json"
    refused = ran(desk, there, "--client-document", address)
    assert (refused.exit_code, "takes no such documents" in refused.output) == (2, True)
    there.service["client_id_metadata_document_supported"] = True
    done = ran(desk, there, "--client-document", address, "--port", "8400")
    assert done.exit_code == 0, done.output
    assert "redirect_uris [http://127.0.0.1:8400/callback/hub]" in done.output
    hub = load(config(desk)).connections["hub"]
    assert (hub.client_id, hub.client_secret) == (address, None)


def test_an_operator_says_which_of_several(desk: Desk, there: Granting) -> None:
    """And nobody else; one that the server does not name is none of them."""
    there.server["authorization_servers"] = ["https://other.example", there.url]
    for words in ((), ("--issuer", "https://third.example")):
        refused = ran(desk, there, *words)
        assert (refused.exit_code, "--issuer" in refused.output) == (2, True)
    assert ran(desk, there, "--issuer", there.url, "--scope", "less").exit_code == 0
    hub = load(config(desk)).connections["hub"]
    assert (hub.issuer, hub.scopes) == (there.url, ("less",))


def test_tokens_that_cannot_be_ended_are_said_to_last(desk: Desk, there: Granting) -> None:
    """The lease says so, or each call would be refused."""
    there.service["revocation_endpoint"] = None
    done = ran(desk, there)
    assert "cannot be ended" in done.output
    assert load(config(desk)).leases["hub"].revoke is False


def test_the_answer_is_for_machines_too(desk: Desk, there: Granting) -> None:
    """The last line is the document."""
    done = ran(desk, there, "--json")
    said: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    assert (said["issuer"], said["client_id"], said["done"]) == (there.url, "made", True)


def test_nothing_is_registered_that_could_not_be_written(desk: Desk, there: Granting) -> None:
    """A name that is taken, a secret that lies there, settings without a vault, a credential that is none."""
    assert ran(desk, there).exit_code == 0
    before = (config(desk).read_bytes(), len([path for path in there.paths() if path == "/register"]))
    assert ran(desk, there).exit_code == 2
    (desk.home.parent / "state" / "secrets" / "other.client_secret").write_text("x", "utf-8")
    assert ran(desk, there, name="other").exit_code == 2
    assert ran(desk, there, "--discovery", "nobody", name="third").exit_code == 2
    assert (config(desk).read_bytes(), len([path for path in there.paths() if path == "/register"])) == before
    desk.file("gateway.toml", 'state = "state"\n')
    refused = ran(desk, there, name="fourth")
    assert (refused.exit_code, "vault" in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("words", "name", "code"),
    [
        ((), "Two Words", 2),
        ((), "gateway", 2),
        (("--client-secret-env", "X"), "hub", 2),
        (("--client-id", "x", "--client-document", "https://gateway.example/c"), "hub", 2),
        (("--allow-network", "10.0.0.1/8"), "hub", 2),
    ],
)
def test_words_that_cannot_be_used(desk: Desk, there: Granting, words: tuple[str, ...], name: str, code: int) -> None:
    """Nobody is asked anything."""
    assert ran(desk, there, *words, name=name).exit_code == code
    assert there.asked == []


def test_a_server_that_cannot_be_believed_changes_nothing(desk: Desk, there: Granting) -> None:
    """It is said why, and what to do."""
    there.server["resource"] = "https://evil.example/mcp"
    before = config(desk).read_bytes()
    done = ran(desk, there)
    assert (done.exit_code, "speaks for another server" in done.output, "fix:" in done.output) == (1, True, True)
    assert config(desk).read_bytes() == before


def test_a_client_that_is_made_in_vain_is_named(desk: Desk, there: Granting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operator can have it removed; the files are as they were."""

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    before = config(desk).read_bytes()
    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(os, "rename", full)
    done = ran(desk, there)
    assert (done.exit_code, f"the client made was registered at {there.url}" in done.output) == (1, True), done.output
    assert config(desk).read_bytes() == before
