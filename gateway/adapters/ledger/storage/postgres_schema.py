"""The tables of a log in PostgreSQL, and how to tell that somebody altered them."""

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.storage.files import RARE_EFFECT, RARE_TYPE
from gateway.adapters.ledger.storage.postgres_database import SCHEMA
from gateway.core.records import EventType

FORMAT = 5
# Text is compared by its bytes, as SQLite does it, whatever the language of the database.
_TYPES = {"text": 'text collate "C"', "number": "bigint", "bytes": "bytea", "flag": "boolean"}
# Table -> columns; "!" is not null, "#" the primary key.
_TABLES = {
    "records": (
        "idx number #, id text !, leaf bytes !, hash bytes !, ts number !, type text !, run_id text, seq_run number, "
        "call_id text, tool text, effect text, agent text"
    ),
    "payloads": "pid number #, sealed bytes !",
    "deks": "id text #, wrapped bytes !",
    "erased": "key text #, idx number !",
    "holds": "target text #, idx number !, id text !",
    "nodes": "level number #, place number #, hash bytes !",
    "checkpoints": "win number #, size number !, high_us number !, low_us number !, note text !, peaks bytes !",
    "reasons": "reason text #, idx number #",
    "intents": "call_id text #, idx number !, replica text !",
    "open_runs": "run_id text #, binding text",
    "approvals": (
        "id text #, action text !, state text !, idx number !, at_us number !, expires_us number !, call_id text"
    ),
    "sequencer": (
        "id number #, format number !, size number !, note text !, peaks bytes !, win number !, high_us number !, "
        "low_us number !, changes number !, keys text !"
    ),
    "replicas": "num number #, id text !, joined flag !",
    "reservations": "call_id text #, scope text !, replica text !, tool text !, measures text !",
}
# Not worth a disk write: the database's own crash ends the sessions of all replicas, and a call without its place is
# refused.
_UNLOGGED = frozenset({"reservations"})
_REQUEST = f"type = '{EventType.TOOL_REQUESTED}'"
# Index -> (unique, table and columns, condition).
_INDEXES = {
    "records_run": (True, "records (run_id, seq_run)", "run_id is not null"),
    "records_call": (False, "records (call_id)", "call_id is not null"),
    "records_type": (False, "records (type, idx)", RARE_TYPE),
    "records_tool": (False, "records (tool, idx)", None),
    "records_effect": (False, "records (effect, idx)", RARE_EFFECT),
    "records_request": (False, "records (agent, ts)", _REQUEST),
    "records_run_request": (False, "records (run_id, idx)", _REQUEST),
    "records_agent_request": (False, "records (agent, idx)", _REQUEST),
    "records_agent": (False, "records (agent, idx)", "agent is not null"),
    "open_runs_binding": (True, "open_runs (binding)", None),
    "approvals_open": (True, "approvals (action)", "state in ('pending', 'approved', 'executing')"),
    "replicas_id": (True, "replicas (id)", None),
    "reservations_scope": (False, "reservations (scope)", None),
}
_FOUND_COLUMNS = """
select table_name, column_name, data_type, is_nullable from information_schema.columns where table_schema = ?
"""
_FOUND_INDEXES = """
select c.relname::text, i.indisunique from pg_index i join pg_class c on c.oid = i.indexrelid
  join pg_namespace n on n.oid = c.relnamespace where n.nspname = ? and not i.indisprimary and i.indisvalid
"""
_FOUND_OTHERS = """
select 'trigger', t.tgname::text from pg_trigger t join pg_class c on c.oid = t.tgrelid
  join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and not t.tgisinternal
union all
select 'rule', r.rulename::text from pg_rewrite r join pg_class c on c.oid = r.ev_class
  join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1
union all
select 'function', p.proname::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = $1
"""
_DATA_TYPES = {"text": "text", "number": "bigint", "bytes": "bytea", "flag": "boolean"}


def script() -> str:
    """Makes everything, in one transaction."""
    tables = [_table(name, columns) for name, columns in _TABLES.items()]
    indexes = [_index(name, *parts) for name, parts in _INDEXES.items()]
    first = f"insert into sequencer values (1, {FORMAT}, 0, '', '', 0, 0, {2**63 - 1}, 0, '')"  # noqa: S608 - literals only
    return ";\n".join(["begin", f"create schema if not exists {SCHEMA}", *tables, *indexes, first, "commit"])


def problems(db: Database) -> list[str]:
    """How a log's tables differ from those this version makes."""
    expected = dict(_expected_columns())
    found = {(row[0], row[1]): (row[2], row[3] == "NO") for row in db.execute(_FOUND_COLUMNS, (SCHEMA,))}
    said = [f"column {'.'.join(name)} is not part of a log" for name in sorted(found.keys() - expected.keys())]
    said += [f"column {'.'.join(name)} is missing" for name in sorted(expected.keys() - found.keys())]
    both = sorted(found.keys() & expected.keys())
    said += [f"column {'.'.join(name)} was altered" for name in both if found[name] != expected[name]]
    indexes = dict(db.execute(_FOUND_INDEXES, (SCHEMA,)))
    wanted = {name: parts[0] for name, parts in _INDEXES.items()}
    said += [f"index {name} is missing, invalid or altered" for name in wanted if indexes.get(name) != wanted[name]]
    said += [f"index {name} is not part of a log" for name in sorted(indexes.keys() - wanted.keys())]
    return said + [f"{kind} {name} is not part of a log" for kind, name in db.execute(_FOUND_OTHERS, (SCHEMA,))]


def _columns(text: str) -> list[tuple[str, str, str]]:
    parts = [column.split(" ") for column in text.split(", ")]
    return [(name, kind, rest[0] if rest else "") for name, kind, *rest in parts]


def _table(name: str, text: str) -> str:
    columns = [f"{column} {_TYPES[kind]}{'' if mark == '' else ' not null'}" for column, kind, mark in _columns(text)]
    key = ", ".join(column for column, _, mark in _columns(text) if mark == "#")
    kind = "unlogged table" if name in _UNLOGGED else "table"
    return f"create {kind} {name} ({', '.join(columns)}, primary key ({key}))"


def _index(name: str, unique: bool, on: str, condition: str | None) -> str:
    where = "" if condition is None else f" where {condition}"
    return f"create {'unique ' if unique else ''}index {name} on {on}{where}"


def _expected_columns() -> list[tuple[tuple[str, str], tuple[str, bool]]]:
    return [
        ((table, column), (_DATA_TYPES[kind], mark != ""))
        for table, text in _TABLES.items()
        for column, kind, mark in _columns(text)
    ]
