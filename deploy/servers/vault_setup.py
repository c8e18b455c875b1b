"""What the gateway needs of a Vault and of PostgreSQL, as data.

Policies, token roles, AppRoles and the rest are what ``ostiary vault apply`` writes (``gateway/core/vault_plan.py``);
here are only the things of ``docs/credentials.md`` that are the operator's own: group roles, connection, roles.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from deploy.servers.openbao import Request
from gateway.core import leasing, vault_plan
from gateway.core.leasing import reaping
from gateway.core.vault_plan import PASSWORDS, Needs, Piece
from gateway.core.vault_policy import Duties

MOUNT = "database"
CONNECTION = "ostiary"
# `{{name}}` is the minted role; its first 22 characters name the token that asked. Each line is a statement of its own,
# all of them one transaction. A token that was reaped mints nothing any more, and no token is reaped while it mints.
_FENCE = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    """\
DO $$ DECLARE asking text := pg_catalog.substr('{{{{name}}}}', 1, 22); BEGIN
  PERFORM pg_catalog.pg_advisory_xact_lock_shared(7809638, pg_catalog.hashtext(asking));
  IF EXISTS (SELECT FROM "{keeper}".ended WHERE token = asking) THEN
    RAISE EXCEPTION 'the token that asks has ended';
  END IF;
END $$""",
)
# The last one drops what a vault that died between commit and lease has left, marked by the line before: by then nobody
# can log in as it, and the vault has ended what it has a lease of. It is for those that nobody reaps.
_CREATION = (
    *_FENCE,
    'CREATE ROLE "{{{{name}}}}" LOGIN IN ROLE "{group}" CONNECTION LIMIT 2',
    "ALTER ROLE \"{{{{name}}}}\" PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}'",
    "ALTER ROLE \"{{{{name}}}}\" SET statement_timeout = '60s'",
    "ALTER ROLE \"{{{{name}}}}\" SET idle_session_timeout = '60s'",
    'GRANT "{{{{name}}}}" TO "{keeper}"',
    "COMMENT ON ROLE \"{{{{name}}}}\" IS 'minted by ostiary for {name}'",
    """\
DO $$ DECLARE lost name; strays int[]; BEGIN
  PERFORM set_config('search_path', 'pg_catalog', true), set_config('lock_timeout', '1s', true);
  strays := ARRAY(SELECT pid FROM pg_stat_activity WHERE usesysid IS NOT NULL AND usename IS NULL);
  PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY (strays) AND usename IS NULL;
  IF NOT pg_try_advisory_xact_lock(7809638) THEN RETURN; END IF;
  FOR lost IN SELECT rolname FROM pg_roles WHERE rolvaliduntil < now() - interval '1 minute'
    AND shobj_description(oid, 'pg_authid') = 'minted by ostiary for {name}' LOOP
    BEGIN
      PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = lost;
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
# Of a role that is gone already: nothing, or its lease could never end. A reaping is waited for, by a lock that no
# minted user can take: an advisory one could keep its holder from being ended.
# Sessions end first: one that changes its own password has its role's row locked, and ALTER ROLE would wait for it.
# Then once more: until then it could log in again.
# One that logs in before all this is committed goes on without a user: it may do nothing more than anybody, and ends
# with the next minting or ending. Looked for twice: the user of one that began just now may not be visible yet.
_REVOCATION = (
    """\
DO $$ DECLARE strays int[]; BEGIN
  PERFORM pg_catalog.set_config('lock_timeout', '5s', true);
  LOCK TABLE "{keeper}".ended IN ROW EXCLUSIVE MODE;
  strays := ARRAY(SELECT pid FROM pg_catalog.pg_stat_activity WHERE usesysid IS NOT NULL AND usename IS NULL);
  PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
    WHERE pid = ANY (strays) AND usename IS NULL;
  IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{{{{name}}}}') THEN
    PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = '{{{{name}}}}';
    ALTER ROLE "{{{{name}}}}" NOLOGIN;
    PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = '{{{{name}}}}';
    REASSIGN OWNED BY "{{{{name}}}}" TO "{keeper}";
    DROP OWNED BY "{{{{name}}}}";
    DROP ROLE "{{{{name}}}}";
  END IF;
END $$""",
)
# Makes nobody. It is asked with a token of the same name as one that has ended, and drops all that one has left: after
# a success there is no role of that token, and none can come.
_REAPING = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    """\
DO $$ DECLARE lost name; asked text := pg_catalog.substr('{{{{name}}}}', 1, 22); BEGIN
  PERFORM set_config('search_path', 'pg_catalog', true), set_config('lock_timeout', '1s', true);
  IF asked !~ '^v-[0-9a-f]{{20}}$' THEN
    RAISE EXCEPTION 'username_template does not begin with the name of the token';
  END IF;
  IF NOT pg_try_advisory_xact_lock(7809638, hashtext(asked)) THEN
    RAISE EXCEPTION 'a minting of this token goes on';
  END IF;
  LOCK TABLE "{keeper}".ended IN SHARE ROW EXCLUSIVE MODE;
  DELETE FROM "{keeper}".ended WHERE since < now() - interval '1 day';
  INSERT INTO "{keeper}".ended (token) VALUES (asked) ON CONFLICT DO NOTHING;
  FOR lost IN SELECT rolname FROM pg_roles WHERE starts_with(rolname::text, asked || '-')
    AND shobj_description(oid, 'pg_authid') = 'minted by ostiary for {name}' LOOP
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = lost;
    EXECUTE format('ALTER ROLE %I NOLOGIN', lost);
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = lost;
    EXECUTE format('REASSIGN OWNED BY %I TO %I', lost, current_user);
    EXECUTE format('DROP OWNED BY %I', lost);
    EXECUTE format('DROP ROLE %I', lost);
  END LOOP;
END $$""",
)
# Its own lease has nothing to end.
_REAPED = ("DO $$ BEGIN END $$",)
# The name that the gateway gave the token, which a vault shows as `token-ostiary-NAME-...`, stands in the role's.
NAMES = (
    '{{ printf "v-%s-%s-%s" (.DisplayName | truncate 34 | replace "token-ostiary-" "") '
    "(.RoleName | truncate 20) (random 12) | lowercase }}"
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
        f'CREATE SCHEMA AUTHORIZATION "{keeper.user}"',
        f'CREATE TABLE "{keeper.user}".ended (token text PRIMARY KEY, since timestamptz NOT NULL DEFAULT now())',
        f'ALTER TABLE "{keeper.user}".ended OWNER TO "{keeper.user}"',
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
        "allowed_roles": [name for one in templates for name in (one.name, reaping(one.name))],
        "connection_url": f"user={{{{username}}}} password={{{{password}}}} dbname={keeper.database} "
        f"host={keeper.folder}",
        "username": keeper.user,
        "password": keeper.password,
        "password_policy": PASSWORDS,
        "username_template": NAMES,
        "max_open_connections": 8,
    }
    return [
        Request("connection", f"{MOUNT}/config/{CONNECTION}", connection),
        *(role for template in templates for role in (_role(template, keeper), _reaper(template, keeper))),
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
    return _database_role(template, keeper, template.name, (_CREATION, _REVOCATION))


def _reaper(template: Template, keeper: Keeper) -> Request:
    return _database_role(replace(template, ttl_s=5), keeper, reaping(template.name), (_REAPING, _REAPED))


def _database_role(
    template: Template, keeper: Keeper, role: str, statements: tuple[tuple[str, ...], tuple[str, ...]]
) -> Request:
    making, ending = (
        [line.format(group=template.group, keeper=keeper.user, name=template.name) for line in lines]
        for lines in statements
    )
    body = {
        "db_name": CONNECTION,
        "creation_statements": making,
        "revocation_statements": ending,
        "default_ttl": f"{template.ttl_s}s",
        "max_ttl": f"{template.ttl_s}s",
    }
    return Request(f"role-{role}", f"{MOUNT}/roles/{role}", body)
