"""The log's tree over HTTP: the paths of C2SP tlog-tiles, proofs, and what is no tile."""

import pytest

from gateway.core.desk import LogRecord
from tests.edge_world import Edge


@pytest.fixture
def edge() -> Edge:
    """A gateway whose log has 300 records."""
    edge = Edge()
    edge.reader.records = [LogRecord(index, b"{}", {}) for index in range(300)]
    return edge


@pytest.mark.parametrize("path", ["0/000", "0/001.p/44", "1/000.p/1", "entries/000", "entries/001.p/44"])
async def test_tiles_may_be_kept(edge: Edge, path: str) -> None:
    """Bytes that never change: they may be kept for ever, by the caller alone."""
    async with edge.client("auditor") as auditor:
        answer = await auditor.get(f"/v1/audit/log/tile/{path}")
    assert (answer.status_code, answer.text) == (200, path)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers.get_list("cache-control") == ["private, max-age=31536000, immutable"]


@pytest.mark.parametrize(
    "path", ["0/002", "0/001", "0/001.p/45", "2/000.p/1", "0/1", "0/000.p/256", "64/000", "0/000/", "x", "0/%2e%2e/000"]
)
async def test_there_is_no_such_tile(edge: Edge, path: str) -> None:
    """Beyond the end of the log, or no tile's path: 404, which is not kept."""
    async with edge.client("auditor") as auditor:
        answer = await auditor.get(f"/v1/audit/log/tile/{path}")
    assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-store")


async def test_proofs_and_the_checkpoint(edge: Edge) -> None:
    """Plain text; the proof of a record comes as a file of its own."""
    async with edge.client("auditor") as auditor:
        note = await auditor.get("/v1/audit/log/checkpoint")
        assert (note.text, note.headers["content-type"]) == ("fake log\n300\n", "text/plain; charset=utf-8")
        assert note.headers["cache-control"] == "no-store"
        proof = await auditor.get("/v1/audit/log/proofs/7")
        assert proof.text == "proof of 7\n"
        edge.witnesses.note = "what witnesses cosigned"
        assert (await auditor.get("/v1/audit/log/proofs/7")).text == "proof of 7 under what witnesses cosigned\n"
        assert proof.headers["content-disposition"] == 'attachment; filename="7.tlog-proof"'
        said = (await auditor.get("/v1/audit/log/consistency?old=3")).json()
        assert said == {"old": 3, "new": 300, "proof": ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]}
        for index in ("300", "07", "-1", "1e3", "9" * 40, "\u0667", "x"):
            assert (await auditor.get(f"/v1/audit/log/proofs/{index}")).status_code == 404, index
        for query, status in (("", 400), ("old=-1", 400), ("old=x", 400), ("old=2&new=1", 404), ("old=1&new=301", 404)):
            assert (await auditor.get(f"/v1/audit/log/consistency?{query}")).status_code == status, query
