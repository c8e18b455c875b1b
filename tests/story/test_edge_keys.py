"""The log's keys and witnesses over HTTP: who may see them, who may change them, and what is served of both."""

from gateway.core.cosigning import TrustPolicy
from gateway.core.desk import LogRecord
from gateway.core.errors import Conflict
from gateway.core.witnessing import Standing
from tests.edge_world import ADMIN, Edge


async def test_an_administrator_rotates_and_retires() -> None:
    """Each answer is the whole list; what is out of turn is a conflict; who asked is known to the log."""
    edge = Edge()
    async with edge.client("admin") as client:
        (first,) = (await client.get("/v1/audit/keys")).json()["keys"]
        assert first["state"] == "signing"
        assert first["vkey"].endswith(edge.keys.reigns[0].key.text[-10:])
        assert (await client.post("/v1/audit/keys/retire")).status_code == Conflict.status
        first, second = (await client.post("/v1/audit/keys/rotate")).json()["keys"]
        assert (first["retires_us"], second["since_size"], "retires_us" in second) == (9_000, 5, False)
        assert (await client.post("/v1/audit/keys/rotate")).json()["cause"] == "log_key"
        first, second = (await client.post("/v1/audit/keys/retire")).json()["keys"]
        assert (first["state"], first["until_size"], first["until_us"]) == ("retired", 7, 3_000)
        policy = await client.get("/v1/audit/policy")
        assert [key.text for key in TrustPolicy.parse(policy.text).logs] == [second["vkey"]]
        assert policy.headers["content-type"] == "text/plain; charset=utf-8"
    assert edge.keys.by == [ADMIN, ADMIN]


async def test_others_see_or_change_nothing() -> None:
    """An auditor may look; an agent may neither, and nobody without a credential."""
    edge = Edge()
    async with edge.client("auditor") as client:
        assert (await client.get("/v1/audit/keys")).status_code == 200
        assert (await client.get("/v1/audit/policy")).status_code == 200
        for act in ("rotate", "retire"):
            assert (await client.post(f"/v1/audit/keys/{act}")).status_code == 403
    for token in ("good", None):
        async with edge.client(token) as client:
            for path in ("/v1/audit/keys", "/v1/audit/policy", "/v1/audit/log/witnessed"):
                assert (await client.get(path)).status_code in {401, 403}
    assert edge.keys.by == []


async def test_the_checkpoint_carries_its_cosignatures() -> None:
    """As many as there are of this very one; beside it stands the newest that a quorum has cosigned, if any."""
    edge = Edge()
    edge.reader.records = [LogRecord(0, b"{}", {})]
    async with edge.client("auditor") as client:
        bare = (await client.get("/v1/audit/log/checkpoint")).text
        assert (await client.get("/v1/audit/log/witnessed")).json()["cause"] == "witnessed"
        edge.witnesses.line, edge.witnesses.note = "\u2014 w AAAA\n", "a note\n"
        assert (await client.get("/v1/audit/log/checkpoint")).text == f"{bare}\u2014 w AAAA\n"
        assert (await client.get("/v1/audit/log/witnessed")).text == "a note\n"


async def test_witnesses_are_a_detail_of_readiness() -> None:
    """Said to auditors only, and where there are some; one that is down changes no status."""
    edge = Edge()
    async with edge.client("auditor") as client:
        assert "witnesses" not in (await client.get("/readyz")).json()
        edge.witnesses.now = Standing(7, 5_000, {"one": "ok", "two": "unreachable"})
        page = (await client.get("/readyz")).json()
        assert page["status"] == "ready"
        assert page["witnesses"] == {
            "states": {"one": "ok", "two": "unreachable"},
            "size": 7,
            "unwitnessed_since_us": 5_000,
        }
    async with edge.client(None) as client:
        assert "witnesses" not in (await client.get("/readyz")).json()
