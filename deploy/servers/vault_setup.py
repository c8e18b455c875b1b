"""What the gateway needs of a Vault and of PostgreSQL, as data.

Policies, token roles, AppRoles and the rest are what ``ostiary vault apply`` writes (``gateway/core/vault_plan.py``);
here are only the things of ``docs/credentials.md`` that are the operator's own: group roles, connection, roles.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from deploy.servers.openbao import Request
from gateway.core import leasing, vault_plan
from gateway.core.vault_plan import PASSWORDS, Needs, Piece
from gateway.core.vault_policy import Duties

MOUNT = "database"
CONNECTION = "ostiary"
# `{{name}}` is the minted role. Each line is a statement of its own, all of them one transaction. The last one drops
# what a vault that died between commit and lease has left, marked by the line before: by then nobody can log in as it,
# and the vault has ended what it has a lease of.
_CREATION = (
    'CREATE ROLE "{{{{name}}}}" LOGIN IN ROLE "{group}" CONNECTION LIMIT 2',
    "ALTER ROLE \"{{{{name}}}}\" PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}'",
    "ALTER ROLE \"{{{{name}}}}\" SET statement_timeout = '60s'",
    "ALTER ROLE \"{{{{name}}}}\" SET idle_session_timeout = '60s'",
    'GRANT "{{{{name}}}}" TO "{keeper}"',
    "COMMENT ON ROLE \"{{{{name}}}}\" IS 'minted by ostiary for {name}'",
    """\
DO $$ DECLARE lost name; BEGIN
  PERFORM set_config('search_path', 'pg_catalog', true);
  IF NOT pg_try_advisory_xact_lock(7809638) THEN RETURN; END IF;
  FOR lost IN SELECT rolname FROM pg_roles WHERE rolvaliduntil < now() - interval '1 minute'
    AND shobj_description(oid, 'pg_authid') = 'minted by ostiary for {name}' LOOP
    BEGIN
      EXECUTE format('ALTER ROLE %I NOLOGIN', lost);
      PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = lost;
      EXECUTE format('REASSIGN OWNED BY %I TO %I', lost, current_user);
      EXECUTE format('DROP OWNED BY %I', lost);
      EXECUTE format('DROP ROLE %I', lost);
    EXCEPTION WHEN OTHERS THEN RAISE WARNING 'the role % is left: %', lost, SQLERRM;
    END;
  END LOOP;
END $$""",
)
# Of a role that is gone already: nothing, or its lease could never end.
_REVOCATION = (
    """\
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{{{{name}}}}') THEN
    ALTER ROLE "{{{{name}}}}" NOLOGIN;
    PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = '{{{{name}}}}';
    REASSIGN OWNED BY "{{{{name}}}}" TO "{keeper}";
    DROP OWNED BY "{{{{name}}}}";
    DROP ROLE "{{{{name}}}}";
  END IF;
END $$""",
)
_ODD = re.compile(r"[^a-z0-9-]")


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of lease.

    Attributes:
        name: of the template, its policy and its token role.
        group: PostgreSQL group role that minted roles are members of.
        ttl_s: longest a minted role lives.
    """

    name: str
    group: str
    ttl_s: int = 60


@dataclass(frozen=True, slots=True)
class Keeper:
    """What the database plugin logs in with; it can make and drop members of the groups, and no more.

    Attributes:
        user: PostgreSQL role with CREATEROLE.
        folder: folder of the database's socket.
    """

    user: str
    folder: str
    database: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """The gateway's own way in: an AppRole.

    Attributes:
        period_s: life of the gateway's token and of the tokens that mint; what a killed gateway leaves is gone then.
    """

    role_id: str
    secret_id: str = field(repr=False)
    period_s: int = 30


def groups_sql(templates: Sequence[Template], keeper: Keeper) -> list[str]:
    """Statements for PostgreSQL's superuser: the group roles, and the keeper that may hand membership out."""
    statements = [
        f"CREATE ROLE \"{keeper.user}\" LOGIN CREATEROLE PASSWORD '{keeper.password}'",
        f'GRANT pg_signal_backend TO "{keeper.user}"',
    ]
    for template in templates:
        statements += [
            f'CREATE ROLE "{template.group}" NOLOGIN',
            f'GRANT "{template.group}" TO "{keeper.user}" WITH ADMIN OPTION',
        ]
    return statements


def requests(
    templates: Sequence[Template],
    keeper: Keeper,
    entry: Entry,
    duties: Duties = Duties(),  # noqa: B008 - immutable
) -> list[Request]:
    """What OpenBao is told at its first start."""
    asked = Needs(
        tuple(leasing.Template(one.name, MOUNT, one.name, one.name, one.ttl_s) for one in templates),
        duties,
        role_id=entry.role_id,
        period_s=entry.period_s,
    )
    return [*held(asked), *databases(templates, keeper), secret_id(asked.name, entry.secret_id)]


def databases(templates: Sequence[Template], keeper: Keeper) -> list[Request]:
    """The operator's own: the connection, and a role for each template."""
    connection = {
        "plugin_name": "postgresql-database-plugin",
        "allowed_roles": [template.name for template in templates],
        "connection_url": f"user={{{{username}}}} password={{{{password}}}} dbname={keeper.database} "
        f"host={keeper.folder}",
        "username": keeper.user,
        "password": keeper.password,
        "password_policy": PASSWORDS,
        "username_template": '{{ printf "v-%s-%s" (.RoleName | truncate 20) (random 12) | lowercase }}',
        "max_open_connections": 8,
    }
    return [
        Request("connection", f"{MOUNT}/config/{CONNECTION}", connection),
        *(_role(template, keeper) for template in templates),
    ]


def held(needs: Needs) -> list[Request]:
    """All that ``ostiary vault apply`` would write, written at the first start instead, and what joins the two logs."""
    # Requests that end something have no id in their answers: their header field is audited.
    joins = Request("correlation", "sys/config/auditing/request-headers/X-Correlation-Id", {"hmac": False})
    return [joins, *(_as_request(piece) for piece in vault_plan.pieces(needs))]


def secret_id(approle: str, value: str) -> Request:
    """The first secret id of an AppRole, chosen by us."""
    return Request(f"key-{approle}", f"auth/approle/role/{approle}/custom-secret-id", {"secret_id": value})


def tokens(name: str, policy: str, period_s: int) -> list[Request]:
    """The policy ``name`` with any text, and the token role of that name whose tokens have it and no other."""
    template = leasing.Template(name, MOUNT, name, name, period_s)
    _, role = vault_plan.token_pieces(template, period_s)
    return [Request(f"policy-{name}", f"sys/policies/acl/{name}", {"policy": policy}), _as_request(role)]


def _as_request(piece: Piece) -> Request:
    return Request(_ODD.sub("-", piece.path), piece.path, piece.body)


def _role(template: Template, keeper: Keeper) -> Request:
    role = {
        "db_name": CONNECTION,
        "creation_statements": [
            line.format(group=template.group, keeper=keeper.user, name=template.name) for line in _CREATION
        ],
        "revocation_statements": [line.format(keeper=keeper.user) for line in _REVOCATION],
        "default_ttl": f"{template.ttl_s}s",
        "max_ttl": f"{template.ttl_s}s",
    }
    return Request(f"role-{template.name}", f"{MOUNT}/roles/{template.name}", role)
