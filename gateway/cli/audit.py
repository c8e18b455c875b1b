"""``ostiary audit``: asking and checking the signed log."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from gateway.cli.credentials import credentials, table
from gateway.cli.custody import erase, hash_, hold
from gateway.cli.explain import explain
from gateway.cli.export.command import export
from gateway.cli.export.evidence import evidence
from gateway.cli.log_keys import keys, policy
from gateway.cli.moments import ago_or_moment
from gateway.cli.proving import prove
from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import answer, columns
from gateway.cli.verifying import verify


@click.group()
def audit() -> None:
    """Search, verify and erase the signed log."""


audit.add_command(erase)
audit.add_command(evidence)
audit.add_command(explain, "why")
audit.add_command(export)
audit.add_command(hash_)
audit.add_command(hold)
audit.add_command(keys)
audit.add_command(policy)
audit.add_command(prove)
audit.add_command(verify)


@audit.command()
@click.argument("query", default="")
@click.option("--type", "type_", help="Record type, or a pattern such as 'tool.*'.")
@click.option("--tool", help="Tool, or a pattern such as 'erp.*'.")
@click.option("--effect", type=click.Choice(["allow", "deny", "needs_approval"]), help="Effect of the decision.")
@click.option("--agent", help="Agent.")
@click.option("--run", "run_id", help="Run.")
@click.option("--call", "call_id", help="Call.")
@click.option("--since", callback=ago_or_moment, help="Not before: 24h, 7d, or ISO 8601.")
@click.option("--until", callback=ago_or_moment, help="Not after.")
@click.option("--after", type=click.IntRange(0), help="Go on after the record of this index.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@reaching
def search(reach: Reach, **given: Any) -> None:
    """List records in log order; every term of QUERY and every option must hold.

    QUERY is like 'tool:pay.* effect:deny -agent:clerk since:24h'. Its fields are agent, call, effect, reason, run,
    since, tool, type, until and user (as `ostiary audit hash` tells it); - in front leaves such records out, * stands
    for any characters in agent, reason, tool and type, and a value with spaces stands in double quotes. The options
    are the same terms, spelt out. A query that begins with - stands after a --. The search itself becomes a record of
    the log.
    """
    renamed = {"query": "q", "type_": "type", "since": "since_us", "until": "until_us"}
    given["query"] = given["query"] or None
    found = reach.get("/v1/audit/records", {renamed.get(name, name): value for name, value in given.items()})
    records = _flat(found)
    answer({"records": records, "next": found.get("next")}, _rows(records))


@audit.command("run")
@click.argument("run_id", metavar="ID")
@reaching
def run_(reach: Reach, run_id: str) -> None:
    """Show the timeline of the run ID.

    Below it what was minted for its calls: lease, role, ttl, when it was revoked, and the vault's own request id.
    """
    records: list[dict[str, Any]] = []
    after: int | None = None
    while True:
        found = reach.get(f"/v1/audit/runs/{quote(run_id, safe='')}", {"after": after})
        records += _flat(found)
        after = found.get("next")
        if after is None:
            break
    leased = credentials(records)
    answer({"run_id": run_id, "records": records, "credentials": leased}, [*_rows(records), *table(leased)])


def _flat(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"index": row["index"], **row["record"]} for row in page["records"]]


def _rows(records: list[dict[str, Any]]) -> list[str]:
    heads = ("INDEX", "TIME", "TYPE", "TOOL", "EFFECT", "CALL")
    return columns(heads, [_row(record) for record in records])


def _row(record: dict[str, Any]) -> tuple[object, ...]:
    stamp = record.get("ts")
    when = datetime.fromtimestamp(stamp / 1_000_000, UTC).isoformat(timespec="milliseconds") if stamp else ""
    body = record.get("body") or {}
    return (
        record.get("index"),
        when.replace("+00:00", "Z"),
        record.get("type"),
        body.get("tool"),
        body.get("effect"),
        record.get("call_id"),
    )
