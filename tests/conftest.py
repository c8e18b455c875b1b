"""What every test shares: one event loop, and Hypothesis without deadlines and with the same examples in every run."""

import gc

import pytest
from hypothesis import settings

from tests.e2e.house import house
from tests.e2e.market_house import market
from tests.replicas import both, sites
from tests.servers import real_erp
from tests.stores import real_postgres, site
from tests.tiers import pytest_addoption, pytest_collection_modifyitems, pytest_terminal_summary

__all__ = [
    "anyio_backend",
    "both",
    "house",
    "market",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_terminal_summary",
    "real_erp",
    "real_postgres",
    "site",
    "sites",
]

settings.register_profile("ostiary", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ostiary")


def pytest_collection_finish() -> None:
    """Let the collector of garbage leave alone what is there before the first test and stays until after the last."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The gateway runs on asyncio."""
    return "asyncio"
