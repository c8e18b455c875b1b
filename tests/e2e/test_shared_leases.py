"""Logins of scope ``run`` end to end: a gateway process before a real PostgreSQL whose users a real OpenBao mints."""

from pathlib import Path

from deploy.servers.erp import READ, Erp
from tests.e2e.test_leases import furnish
from tests.gateways import ostiary, serving, until

_AGENT = "ap-agent"


def test_reads_of_a_run_share_a_user_that_ends_with_the_run(real_erp: Erp, tmp_path: Path) -> None:
    """Another run has another; a write has its own; the log says which calls had which; a cut ends what waits."""
    furnish(tmp_path, real_erp)
    config = tmp_path / "gateway.toml"
    config.write_text(config.read_text().replace(f'role = "{READ}"', f'role = "{READ}"\nscope = "run"'))
    with serving(tmp_path, **real_erp.environment) as door:
        (first, token), (second, other) = door.run(_AGENT), door.run(_AGENT)
        for one in (token, token, other):
            assert door.call(one, "erp.find_order", {"number": "PO-1001"}).status_code == 200
        assert len(real_erp.minted()) == 2
        wrote = door.call(token, "erp.stage_invoice", {"order": "PO-1001", "invoice": "R-9", "amount": "10.00"})
        assert wrote.status_code == 200
        assert len(real_erp.minted()) == 2
        real_erp.postgres.run("DELETE FROM staged_invoices")
        bodies = [one["body"] for one in door.records(type="credential.leased", run_id=first)]
        reads = [body for body in bodies if body["kind"] == "login" and body["role"] == READ]
        assert [body.get("reused") for body in reads] == [None, True]
        assert reads[0]["mark"] == reads[1]["mark"]
        assert {one["run_id"] for one in door.ask("lease", "list")["leases"]} == {first, second}
        door.ask("run", "end", first)
        until(lambda: [one["run_id"] for one in door.ask("lease", "list")["leases"]] == [second])
        assert len(real_erp.minted()) == 1
        assert door.ask("lease", "revoke", "--agent", _AGENT) == {"revoked": 1, "pending": 0}
        assert real_erp.minted() == []
        assert door.call(other, "erp.find_order", {"number": "PO-1001"}).status_code == 200
    assert real_erp.minted() == []
    assert ostiary("audit", "verify", "--state", str(tmp_path / "state")).returncode == 0
