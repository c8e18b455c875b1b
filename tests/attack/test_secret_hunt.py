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
from tests.hunting.leaky_api import CANARY, WAYS
from tests.hunting.manor import manor
from tests.hunting.places import files, processes, readable_by_others, runs
from tests.hunting.search import Allowed, Find, Hunt, Secret, forbidden
from tests.hunting.spellings import betrayals

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


KINDS = {
    "secret id", "break-glass secret id", "client token", "password", "certificate's key", "kv value of crm",
    "kv value that is lent", "static credential", "known secret", "child's lasting secret", "agent's token",
    "person's token", "run's token", "API key", "log.pem", "issuer.pem", "payload.kek", "pseudonym.key",
}  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """A gateway that did everything, and was killed while it did."""
    folder = tmp_path_factory.mktemp("manor")
    with manor(folder, tmp_path_factory.mktemp("club")) as found:
        with serving(folder, program=TALKATIVE, **found.environment) as gateway:
            done = Campaign(found, gateway)
            done.let_in()
            done.call_everything()
            done.speak_mcp()
            done.bring_secrets(picked(done))
            done.die()
        done.places |= files(folder, "killed")
        yield done


@pytest.fixture(scope="module")
def campaign(killed: Campaign) -> Campaign:
    """The same, started again, asked by all commands, and stopped: with all it left."""
    folder = killed.manor.folder
    with serving(folder, program=TALKATIVE, **killed.manor.environment) as second:
        killed.gateway = second
        until(lambda: second.http.get("/readyz").status_code == 200)
        killed.ask_commands()
        killed.payloads()
        killed.places |= processes(second.process.pid)
    killed.places |= files(folder, "home")
    return killed


@pytest.fixture(scope="module")
def found(campaign: Campaign) -> list[Find]:
    """All that is found in all places."""
    return Hunt(secrets_of(campaign)).through(campaign.places)


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


def test_every_way_was_gone(killed: Campaign) -> None:
    """Calls that are answered, refused, cut off, left unknown; and every secret brought where it does not belong."""
    ended = killed.outcomes
    for server in ("login", "crm", "old"):
        assert {way for way in WAYS if f"{server}/{way}" in ended} == set(WAYS)
        assert (ended[f"{server}/body"], ended[f"{server}/failure"], ended[f"{server}/cut"]) == ({200}, {502}, {504})
    for server in ("lentfile", "shared"):
        assert (ended[f"{server}/result"], ended[f"{server}/refusal"], ended[f"{server}/crash"]) == (
            {200},
            {502},
            {504},
        )
    assert ended["erp/run's token"] == {200, 502}
    assert (ended["erp/denied"], ended["brought/arguments"], ended["brought/tool"]) == ({404}, {422}, {404})


@pytest.mark.requirement("CRED-1")
def test_processes_that_were_lent_a_credential_die_with_the_gateway(killed: Campaign) -> None:
    """Though they hang and listen to nothing: by the kernel, and the file in memory with them. None had a name."""
    assert len(killed.lent) == 2
    until(lambda: not [pid for pid in killed.lent if runs(pid)])
    value = killed.manor.lasting["kv value that is lent"].encode()
    assert [place for place, data in files(killed.manor.folder, "killed").items() if value in data] == []


@pytest.mark.requirement("CRED-3")
def test_no_secret_of_a_full_run_stands_anywhere(campaign: Campaign, found: list[Find]) -> None:
    """Static, minted, read and lent credentials, tokens, API key, the vault's and the gateway's own keys."""
    wanted = list(secrets_of(campaign))
    names = {secret.name.rstrip("0123456789 ") for secret in wanted}
    assert names >= KINDS, KINDS - names
    assert forbidden(found, ALLOWED) == []
    # What the upstreams were called with is among what was looked for.
    values = tuple(secret.value.decode() for secret in wanted if secret.value.isascii())
    assert [seen for seen in campaign.manor.leaky.seen if not seen.endswith(values)] == []


def test_what_is_allowed_is_found_and_nobody_else_can_read_it(campaign: Campaign, found: list[Find]) -> None:
    """Each exemption is one: without it the secret is found, in the real place; keys are for their owner only."""
    assert [one.why for one in ALLOWED if not any(one.covers(find) for find in found)] == []
    open_to_others = readable_by_others(campaign.manor.folder / "state" / "keys")
    assert [path for path in open_to_others if not path.endswith("log.vkey")] == []


def test_each_kind_of_place_was_looked_at_and_had_something_to_find(campaign: Campaign) -> None:
    """The harmless word beside each secret came through: answers, payloads, listings, logs, exports."""
    holding = {place for place, data in campaign.places.items() if CANARY.encode() in data}
    assert {
        "answer/login/body", "answer/crm/key", "answer/old/field", "answer/server/events", "answer/shared/junk",
        "answer/lentfile/chatter", "answer/lentenv/result", "answer/mcp/login__leak", "payloads", "command/run show",
        "listing/v1/audit/decisions", "home/gateway.err", "home/exported/payloads.jsonl", "home/exported/report.html",
    } <= holding  # fmt: skip
    kinds = (
        "killed/state/log.db-wal",
        "home/state/log.db",
        "command/check --config",
        "command/audit verify",
        "listing/metrics",
    )
    assert all(len(campaign.places[place]) > 100 for place in kinds)


def test_what_is_planted_in_any_place_is_found_there(campaign: Campaign) -> None:
    """In the middle of each place that was collected, in a spelling chosen by its name."""
    secret = Secret("planted", b"Pl4nt3d-b3tw33n-th3-l1n3s")
    hunt, spellings = Hunt([secret]), sorted(betrayals(secret.value).items())
    for number, (place, data) in enumerate(campaign.places.items()):
        _, needles = spellings[number % len(spellings)]
        near, middle = data[-50_000:], min(len(data), 50_000) // 2
        planted = near[:middle] + min(needles) + near[middle:]
        assert {find.place for find in hunt.through({place: planted})} == {place}
