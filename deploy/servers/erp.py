"""A small ERP: a real PostgreSQL whose users a real OpenBao mints, as the demo and the tests use it.

``ERP.gateway_toml`` is what a gateway's settings need to reach it, ``catalogue.toml`` beside this file declares its
tools.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.servers import vault_setup
from deploy.servers.openbao import OpenBao, Request, Storage, openbao
from deploy.servers.postgres import DATABASE, Postgres, postgres
from deploy.servers.vault_setup import Entry, Keeper, Template

CATALOGUE = Path(__file__).with_name("catalogue.toml")
READ, WRITE = "erp-read", "erp-write"
TEMPLATES = (Template(READ, "erp_reader"), Template(WRITE, "erp_writer"))
SECRET_VARIABLE = "ERP_VAULT_SECRET_ID"  # noqa: S105 - the name of a variable
MINTED = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%' ORDER BY 1"
TABLES: tuple[str, ...] = (
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    (
        "CREATE TABLE orders (number text PRIMARY KEY, vendor text NOT NULL, iban text NOT NULL, total numeric(12, 2) "
        "NOT NULL, currency char(3) NOT NULL, due date)"
    ),
    (
        "CREATE TABLE staged_invoices (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_number text NOT NULL "
        "REFERENCES orders, invoice text NOT NULL UNIQUE, amount numeric(12, 2) NOT NULL CHECK (amount > 0), "
        "staged_at timestamptz NOT NULL DEFAULT now())"
    ),
    (
        "INSERT INTO orders VALUES "
        "('PO-1001', 'Nordwind GmbH', 'DE02120300000000202051', 1200.00, 'EUR', '2026-12-31'), "
        "('PO-1002', 'Alpenstahl AG', 'CH9300762011623852957', 640.50, 'CHF', NULL)"
    ),
    "GRANT SELECT ON orders, staged_invoices TO erp_reader",
    "GRANT SELECT ON orders, staged_invoices TO erp_writer",
    "GRANT INSERT ON staged_invoices TO erp_writer",
)


@dataclass(frozen=True, slots=True)
class Erp:
    """The two servers.

    Attributes:
        entry: the gateway's AppRole; its secret id is handed over in the environment variable ``SECRET_VARIABLE``.
    """

    postgres: Postgres
    openbao: OpenBao
    entry: Entry = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What a gateway's environment needs besides."""
        return {SECRET_VARIABLE: self.entry.secret_id}

    def gateway_toml(self, address: str | None = None) -> str:
        """The sections ``[vault]``, ``[leases]`` and ``[upstreams.erp]``; ``address`` = the vault's, if another way."""
        return f"""
[vault]
address = "{address or self.openbao.address}"
role_id = "{self.entry.role_id}"
secret_id = {{ env = "{SECRET_VARIABLE}" }}

[leases.{READ}]
role = "{READ}"
ttl_s = 120

[leases.{WRITE}]
role = "{WRITE}"
ttl_s = 120

[upstreams.erp]
kind = "sql"
url = "{self.postgres.url}"
read_lease = "{READ}"
write_lease = "{WRITE}"
"""

    def minted(self) -> list[str]:
        """The database users that are minted at this moment."""
        return [str(name) for (name,) in self.postgres.run(MINTED)[0]]


@contextmanager
def erp(  # noqa: PLR0913 - what a test chooses of the two servers
    period_s: int = 30,
    more: Sequence[Request] = (),
    *,
    templates: Sequence[Template] = TEMPLATES,
    tables: Sequence[str] = TABLES,
    port: int | None = None,
    storage: Callable[[Postgres], Storage] | None = None,
) -> Iterator[Erp]:
    """Both servers, set up; gone with everything on exit.

    Args:
        period_s: what a killed gateway leaves behind is gone after so long.
        more: further requests of OpenBao's first start.
        templates: what can be leased.
        storage: where OpenBao keeps what it knows; None = in memory.
        tables: statements of the superuser once the templates' group roles are there.
        port: of loopback, where OpenBao listens besides.

    Raises:
        ServerError: one cannot be started; one line with its fix.
    """
    with postgres() as database:
        # Hexadecimal: it is written into a statement and into a connection string.
        keeper = Keeper("ostiary_keeper", str(database.folder), DATABASE, secrets.token_hex(24))
        database.run(*vault_setup.groups_sql(templates, keeper), *tables)
        entry = Entry("ostiary-gateway", secrets.token_hex(24), period_s)
        place = None if storage is None else storage(database)
        with openbao([*vault_setup.requests(templates, keeper, entry), *more], port, place) as vault:
            yield Erp(database, vault, entry)
