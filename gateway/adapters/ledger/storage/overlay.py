"""What a reader sees of a SQLite log: its tables, and what its journal holds beyond them.

The journal's rows are put into temporary tables, and views by the tables' names show both together: whoever asks need
not know. The views look each time at how far the tables have come, as a gateway that writes meanwhile moves into them
what was in the journal: nothing is seen twice.
"""

from pathlib import Path

from gateway.adapters.ledger.additions import PAYLOAD_SLOTS, Additions
from gateway.adapters.ledger.database import DatabaseFault, SqliteDatabase, write
from gateway.adapters.ledger.storage.journal import beyond, frames, log_size

_TABLES = ("nodes", "records", "payloads", "intents", "reasons", "checkpoints")
_LAST = "(select coalesce(max(idx), -1) from main.records)"
_SIGNED = "coalesce((select size from main.checkpoints order by win desc limit 1), 0)"
_VIEWS = f"""
create temp view nodes as select * from main.nodes union all
  select * from temp.new_nodes as new where not exists (
    select 1 from main.nodes as old where old.level = new.level and old.place = new.place
  );
create temp view records as select * from main.records union all
  select * from temp.new_records where idx > {_LAST};
create temp view payloads as select * from main.payloads union all
  select * from temp.new_payloads where pid / {PAYLOAD_SLOTS} > {_LAST};
create temp view intents as select * from main.intents where call_id not in (select call_id from temp.closed) union all
  select * from temp.new_intents where idx > {_LAST};
create temp view reasons as select * from main.reasons union all
  select * from temp.new_reasons where idx > {_LAST};
create temp view checkpoints as
  select * from main.checkpoints where win not in (select win from temp.new_checkpoints where size > {_SIGNED})
  union all
  select * from temp.new_checkpoints where size > {_SIGNED};
"""  # noqa: S608 - literals only


def lay_over(db: SqliteDatabase, journal: Path) -> None:
    """Show what ``journal`` holds, too; ``db`` need not be able to write the log.

    Raises:
        FAULTS: it cannot be read.
    """
    # The journal before the tables: what is moved between the two is seen in the tables.
    held = frames(journal)
    try:
        if held and (more := beyond(held, log_size(db))).records:
            _show(db, more)
    except (UnicodeDecodeError, OverflowError) as error:  # what SQLite would say quotes it; no column can hold a number
        raise DatabaseFault(f"the database is damaged: {error}") from error


def _show(db: SqliteDatabase, more: Additions) -> None:
    db.execute("pragma temp_store = memory")
    for table in _TABLES:
        db.execute(f"create temp table {table} as select * from main.{table} limit 0")  # noqa: S608 - literals only
    write(db, more)
    db.execute("create temp table closed (call_id text primary key)")
    db.executemany("insert into closed values (?)", [(call_id,) for call_id in more.closed])
    for table in _TABLES:
        db.execute(f"alter table temp.{table} rename to new_{table}")
    db.executescript(_VIEWS)
