"""The kill switch end to end: gateway processes before a real PostgreSQL whose users a real OpenBao mints."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.servers import vault_glass
from deploy.servers.erp import Erp, erp
from tests.e2e.test_leases import furnish
from tests.gateways import NO_TLS, Gateway, ostiary, serving, types, until
from tests.servers import sealer

_AGENT = "ap-agent"
_GLASS = "the-break-glass-secret-id"
_OTHERS = """
[policy.data.gateway.scope.agents.other-agent]
allow = ["erp.*"]
[policy.data.gateway.scope.users.erwin]
allow = ["erp.*"]
"""
_OPEN = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(%' AND usename LIKE 'v-%'"


@dataclass(frozen=True)
class Site:
    """Servers, and the gateway before them."""

    erp: Erp
    gateway: Gateway
    threads: ThreadPoolExecutor

    def begin(self, token: str, seconds: int = 25) -> "Future[httpx.Response]":
        """A statement that takes so long, in the background."""
        return self.threads.submit(self.gateway.call, token, "erp.wait", {"seconds": seconds})

    def sessions(self) -> int:
        """Minted users in the middle of a statement."""
        return int(self.erp.postgres.run(_OPEN)[0][0][0])

    def kill(self, *words: str, code: int = 0) -> Any:
        """``ostiary kill WORDS``."""
        return self.gateway.ask("kill", *words, "--reason", "a test", code=code)


def environment(both: Erp) -> dict[str, str]:
    """What a gateway's environment needs."""
    return {**both.environment, vault_glass.SECRET_VARIABLE: _GLASS}


@contextmanager
def opened(folder: Path, both: Erp) -> Iterator[Site]:
    """A gateway in ``folder``."""
    furnish(folder, both)
    with (folder / "gateway.toml").open("a") as page:
        page.write(vault_glass.settings_toml() + _OTHERS)
    with ThreadPoolExecutor(64) as threads, serving(folder, **environment(both)) as gateway:
        yield Site(both, gateway, threads)


@pytest.fixture(scope="module")
def servers() -> Iterator[Erp]:
    """Servers with a break-glass AppRole; what a killed gateway leaves lasts a minute."""
    with erp(60, [*vault_glass.requests(_GLASS), *sealer("the-sealers-own-secret")]) as both:
        yield both


@pytest.fixture
def place(servers: Erp, tmp_path: Path) -> Iterator[Site]:
    """A gateway of its own before those servers."""
    with opened(tmp_path, servers) as found:
        yield found
    until(lambda: servers.minted() == [])


def cause(answer: httpx.Response) -> tuple[int, str]:
    """Status and cause of a refusal."""
    return answer.status_code, str(answer.json().get("cause"))


@pytest.mark.requirement("INC-1", "INC-3")
@pytest.mark.parametrize("kind", ["agent", "user", "tool", "run", "all"])
def test_a_kill_ends_sessions_and_lets_nothing_in(place: Site, kind: str) -> None:
    """Ten statements of what is stopped are thrown out and their users gone, those of others go on but for `all`."""
    ids = [place.gateway.run(_AGENT), place.gateway.run("other-agent", "erwin")]
    (run, token), (_, other) = ids
    stopped = [place.begin(token) for _ in range(10)]
    goes_on = place.threads.submit(place.gateway.call, other, "erp.find_order", {"number": "PO-1001"})
    until(lambda: place.sessions() == 10)
    name = {"agent": _AGENT.upper(), "user": " DORA", "tool": "ERP.Wait", "run": run.upper(), "all": ""}[kind]
    said = place.kill(kind, *([name] if name else []))
    assert said["cut"] == {"calls": 10, "ended": 10, "not_ended": 0, "running": 0, "unverifiable": 0}
    assert place.sessions() == 0
    assert place.erp.minted() == []
    assert {cause(call.result()) for call in stopped} == {(502, f"kill.{kind}")}
    assert goes_on.result().status_code == 200
    assert cause(place.gateway.call(token, "erp.wait", {"seconds": 0})) == (403, f"kill.{kind}")
    expected = 403 if kind == "all" else 200
    assert place.gateway.call(other, "erp.find_order", {"number": "PO-1001"}).status_code == expected
    assert "ostiary_kills 1.0" in place.gateway.http.get("/metrics").text
    assert place.gateway.http.get("/readyz").json()["kills"] == 1
    assert types(place.gateway.records()).count("tool.failed") == 10
    assert ostiary("audit", "verify", "--state", str(place.gateway.state)).returncode == 0


def test_a_refusal_says_why(place: Site) -> None:
    """`explain` names the rule and the kill; the operators' own reason is not told to callers."""
    said = place.gateway.ask("kill", "agent", _AGENT, "--reason", "exfiltrates payroll")
    refused = place.gateway.call(place.gateway.token(agent=_AGENT), "erp.wait", {"seconds": 0})
    assert said["kill_id"] in refused.json()["detail"]
    assert "payroll" not in refused.text
    explained = place.gateway.ask("explain", refused.json()["call_id"])
    assert explained["outcome"] == "killed"
    assert said["kill_id"] in explained["message"]
    (record,) = place.gateway.records(type="request.refused")
    assert record["body"]["cause"] == "kill.agent"


@pytest.mark.requirement("INC-1", "INC-3")
def test_it_takes_a_quorum_to_lift(place: Site) -> None:
    """The operator alone does not; who asked counts once; a second person does; then calls go on."""
    kill_id = place.kill("agent", _AGENT)["kill_id"]
    token = place.gateway.token(agent=_AGENT)
    assert place.kill("lift", kill_id)["votes"] == 1
    place.kill("lift", kill_id, code=1)
    assert place.gateway.call(token, "erp.find_order", {"number": "PO-1001"}).status_code == 403
    admin = place.gateway.token("vera", scopes=["admin"])
    with place.gateway.client(admin) as vera:
        lifted = vera.post(f"/v1/kills/{kill_id}/lift", json={"reason": "looked into"}).json()
    assert (lifted["votes"], lifted["needed"]) == (2, 2)
    assert place.gateway.call(token, "erp.find_order", {"number": "PO-1001"}).status_code == 200
    place.kill("lift", kill_id, code=1)
    found = [kind for kind in types(place.gateway.records()) if kind.startswith("kill.")]
    assert found == ["kill.engaged", "kill.carried_out", "kill.lift_asked", "kill.lift_asked", "kill.lifted"]


def test_who_may_not(place: Site) -> None:
    """An agent, a person without the scope, and who is stopped themselves get nowhere."""
    kill_id = place.kill("user", "vera")["kill_id"]
    for token in (
        place.gateway.token(agent=_AGENT, scopes=["tools"]),
        place.gateway.token("erwin", scopes=["tools"]),
    ):
        with place.gateway.client(token) as client:
            wish = {"kind": "all", "name": "", "reason": "x"}
            assert client.post("/v1/kills", json=wish).status_code == 403
            assert client.get("/v1/kills").status_code == 403
    with place.gateway.client(place.gateway.token("Vera", scopes=["admin"])) as vera:
        assert vera.post(f"/v1/kills/{kill_id}/lift", json={"reason": "it is me"}).status_code == 403


@pytest.mark.requirement("INC-1", "INC-3")
def test_a_gateway_killed_at_once_comes_back_with_the_kill(place: Site) -> None:
    """SIGKILL as soon as the record is there: after the next start it is in force, and nothing is left in the vault."""
    token = place.gateway.token(agent=_AGENT)
    begun = [place.begin(token) for _ in range(5)]
    until(lambda: place.sessions() == 5)
    asking = place.threads.submit(_raw_kill, place.gateway)
    until(lambda: b"kill.engaged" in (place.gateway.state / "log.db-wal").read_bytes())
    place.gateway.process.kill()
    place.gateway.process.wait()
    asking.exception()
    for call in begun:
        call.exception()
    with serving(place.gateway.folder, **environment(place.erp)) as again:
        until(lambda: place.erp.minted() == [])
        assert cause(again.call(token, "erp.wait", {"seconds": 0})) == (403, "kill.agent")
        site = replace(place, gateway=again)
        assert [one["name"] for one in site.gateway.ask("kill", "list")["kills"]] == [_AGENT]
    assert ostiary("audit", "verify", "--state", str(place.gateway.state)).returncode == 0


def _raw_kill(gateway: Gateway) -> None:
    gateway.http.post("/v1/kills", json={"kind": "agent", "name": _AGENT, "reason": "a test"})


@pytest.mark.requirement("CRED-2")
def test_the_break_glass_credential_ends_what_a_dead_gateway_left(place: Site, tmp_path: Path) -> None:
    """Its users are nobody's in the second gateway; `kill all` there ends them, and it alone logs that AppRole in."""
    token = place.gateway.token(agent=_AGENT)
    begun = [place.begin(token) for _ in range(3)]
    until(lambda: place.sessions() == 3)
    place.gateway.process.kill()
    place.gateway.process.wait()
    for call in begun:
        call.exception()
    assert len(place.erp.minted()) == 3
    second = tmp_path / "second"
    with opened(second, place.erp) as site:
        before = place.erp.openbao.audit_log.read_text().count("sys/leases/revoke-prefix")
        site.kill("agent", "somebody")
        assert place.erp.openbao.audit_log.read_text().count("sys/leases/revoke-prefix") == before
        assert len(place.erp.minted()) == 3
        said = site.kill("all")
        assert said["cut"]["not_ended"] == said["cut"]["unverifiable"] == 0
        assert place.erp.minted() == []


def test_check_tries_the_break_glass_credential(place: Site) -> None:
    """`ostiary check` says that it works, and names the policy line where it does not."""
    place.gateway.process.terminate()
    place.gateway.process.wait()
    config = str(place.gateway.folder / "gateway.toml")
    good = ostiary("check", "--config", config, **environment(place.erp))
    assert "break_glass" in good.stdout
    assert "may list the leases" in good.stdout
    bad = ostiary("check", "--config", config, **{**environment(place.erp), vault_glass.SECRET_VARIABLE: "wrong-one-1"})
    assert bad.returncode == 1
    assert "docs/kill.md" in bad.stdout


def test_a_sealed_vault_keeps_nothing_of_ours_open(tmp_path: Path) -> None:
    """Calls are broken off and their sessions closed by us; the credentials are said to be unverifiable."""
    with (
        erp(60, [*vault_glass.requests(_GLASS), *sealer("the-sealers-own-secret")]) as both,
        opened(tmp_path, both) as site,
    ):
        token = site.gateway.token(agent=_AGENT)
        begun = [site.begin(token) for _ in range(3)]
        until(lambda: site.sessions() == 3)
        _seal(both)
        said = site.kill("agent", _AGENT, code=1)
        assert said["cut"] == {"calls": 3, "ended": 0, "not_ended": 0, "running": 0, "unverifiable": 3}
        until(lambda: site.sessions() == 0)
        assert {cause(call.result()) for call in begun} == {(502, "kill.agent")}


def _seal(both: Erp) -> None:
    transport = httpx.HTTPTransport(uds=str(both.openbao.socket), verify=NO_TLS)
    with httpx.Client(transport=transport, base_url="http://localhost") as vault:
        login = vault.post("/v1/auth/approle/login", json={"role_id": "sealer", "secret_id": "the-sealers-own-secret"})
        token = login.json()["auth"]["client_token"]
        assert vault.post("/v1/sys/seal", headers={"x-vault-token": token}).status_code == 204
