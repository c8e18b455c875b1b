"""Everything a full run wrote, logged, listed or raised, searched for every secret of it in every encoding: nothing.

``tests/hunting`` has the parts: a manor with one credential of every kind before upstreams that give all of them back,
what is done in it, and the search. Beside each secret the upstreams say a harmless word, which must be found: a place
where nothing could have been found is no evidence.
"""

import re
import sys
from collections.abc import Iterator

import pytest

from tests.gateways import serving, until
from tests.hunting.campaign import Campaign, keys, minted
from tests.hunting.manor import manor
from tests.hunting.places import files, processes
from tests.hunting.search import Allowed, Hunt, Secret

TALKATIVE = (sys.executable, "-m", "tests.hunting.talkative")
ALLOWED = (
    Allowed(r".*\.(pem|kek|key)( in DER| raw)?", r"(home|killed)/state/keys/.*", "the key files themselves, mode 0600"),
    Allowed("API key", "command/key create", "shown this once to whoever made it"),
    Allowed(
        "secret id|break-glass secret id|static credential|known secret|child's lasting secret",
        "process/gateway/[0-9]+/environ",
        "where the operator put them; the kernel shows them to root only",
    ),
    Allowed("child's lasting secret", "process/SHARED_KEY.starts/[0-9]+/environ", "its own, by the operator's wish"),
    Allowed("password [0-9]+", "process/LENT_DSN.starts/[0-9]+/environ", "the login of its one call, by `env`"),
)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """A whole run, killed in the middle and started again, with all it left."""
    folder = tmp_path_factory.mktemp("manor")
    with manor(folder, tmp_path_factory.mktemp("club")) as found:
        with serving(folder, program=TALKATIVE, **found.environment) as gateway:
            done = Campaign(found, gateway)
            done.let_in()
            done.call_everything()
            done.speak_mcp()
            done.look_at_processes()
            done.bring_secrets(picked(done))
            gateway.process.kill()
            gateway.process.wait()
        done.places |= files(folder, "killed")
        with serving(folder, program=TALKATIVE, **found.environment) as second:
            done.gateway = second
            until(lambda: second.http.get("/readyz").status_code == 200)
            done.ask_commands()
            done.payloads()
            done.places |= processes(second.process.pid)
            yield done


def secrets_of(done: Campaign) -> Iterator[Secret]:
    """All that must be nowhere, as of now."""
    for name, value in done.manor.lasting.items():
        yield Secret(name, value.encode())
    for name, token in done.tokens.items():
        # Of a signed token the signature is the secret part: its claims stand in the log by design.
        yield Secret(name, token.rpartition(".")[2].encode())
    yield from minted(done.manor)
    yield from keys(done.manor.folder / "state" / "keys")


def picked(done: Campaign) -> list[Secret]:
    """The first of each kind that the gateway knows by itself; of tokens it knows what they say, and of keys a hash."""
    kinds: dict[str, Secret] = {}
    for secret in secrets_of(done):
        if secret.name not in done.tokens and not secret.name.endswith((" in DER", " raw")):
            kinds.setdefault(re.sub(r"[ 0-9]+", "", secret.name), secret)
    return list(kinds.values())


@pytest.mark.requirement("CRED-3")
def test_no_secret_of_a_full_run_stands_anywhere(campaign: Campaign) -> None:
    """Static, minted, read and lent credentials, tokens, API key, the vault's and the gateway's own keys."""
    wanted = list(secrets_of(campaign))
    names = {secret.name.rstrip("0123456789 ") for secret in wanted}
    assert {
        "password",
        "client token",
        "API key",
        "run's token",
        "kv value that is lent",
        "log.pem",
        "payload.kek",
    } <= names
    places = campaign.places | files(campaign.manor.folder, "home")
    found = Hunt(wanted).through(places, ALLOWED)
    assert found == []
