"""The statements of ``docs/credentials.md`` that end logins are those that the tests' database role has."""

from pathlib import Path

from deploy.servers import vault_setup
from deploy.servers.vault_setup import Keeper, Template

PAGE = Path(__file__).parents[2] / "docs" / "credentials.md"


def test_the_page_has_the_statements_that_are_tested() -> None:
    """Fence, sweep, revocation and reaping, word for word, the mark, the names of users and the table of the ended."""
    keeper = Keeper("ostiary_keeper", "/run/pg", "erp", "x")
    connection, role, reaper = vault_setup.databases([Template("erp-read", "erp_reader")], keeper)
    page = PAGE.read_text("utf-8")
    isolation, fence, *_, mark, sweep = role.data["creation_statements"]
    (ending,) = role.data["revocation_statements"]
    (nothing,) = reaper.data["revocation_statements"]
    for statement in (fence, sweep, ending, reaper.data["creation_statements"][1]):
        assert f"```sql\n{statement}\n```" in page
    assert mark.replace('"', '\\"') in page
    assert page.count(isolation) == 2
    assert f"revocation_statements='{nothing}'" in page
    assert f"username_template='{connection.data['username_template']}'" in page
    for statement in vault_setup.groups_sql((), keeper)[-3:]:
        assert statement.replace('"', "") in page
