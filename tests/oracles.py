"""OPA as a library in a child process, the oracle of the policy tests; without it they say so and are skipped."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from deploy.campaigns.policy_diff.embedded import Embedded
from deploy.campaigns.policy_diff.oracle import Oracle, Spoken, python
from gateway.adapters.rego.routing import NOWHERE
from gateway.core.bundle import Bundle, Module, bundled

NO_ORACLE = "the library of OPA is missing: run `make setup`"


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    """One for all tests: each loads what it asks about."""
    if not python().exists():
        pytest.skip(NO_ORACLE)
    with Oracle() as found:
        yield found


def deciding(rules: str, data: Mapping[str, Any] | None = None) -> Bundle:
    """A bundle whose decision is ``data.gateway.main.decision`` of these rules."""
    return bundled([Module("main.rego", f"package gateway.main\n\n{rules}\n")], data or {})


def both(oracle: Oracle, bundle: Bundle, document: Mapping[str, Any]) -> tuple[Spoken, Spoken]:
    """What the embedded engine and the oracle say."""
    embedded = Embedded(NOWHERE)
    embedded.load(bundle)
    oracle.load(bundle)
    text = json.dumps(document).encode()
    return embedded.ask(text), oracle.ask(text)
