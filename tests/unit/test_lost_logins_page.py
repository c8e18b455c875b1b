"""The statements of ``docs/credentials.md`` that end logins are those that the tests' database role has."""

from pathlib import Path

from deploy.servers import vault_setup
from deploy.servers.vault_setup import Keeper, Template

PAGE = Path(__file__).parents[2] / "docs" / "credentials.md"


def test_the_page_has_the_statements_that_are_tested() -> None:
    """The sweep and the revocation, word for word, and the mark that the sweep goes by."""
    keeper = Keeper("ostiary_keeper", "/run/pg", "erp", "x")
    *_, role = vault_setup.databases([Template("erp-read", "erp_reader")], keeper)
    page = PAGE.read_text("utf-8")
    mark, sweep = role.data["creation_statements"][-2:]
    (ending,) = role.data["revocation_statements"]
    assert f"```sql\n{sweep}\n```" in page
    assert f"```sql\n{ending}\n```" in page
    assert mark.replace('"', '\\"') in page
