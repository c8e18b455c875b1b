"""What a call adds to its run's sums."""

from typing import Any

import pytest

from gateway.core.errors import InvalidArguments
from gateway.core.measures import amounts
from gateway.core.tool import Measure
from tests.evidence import make_tool

PAY = Measure("amount", "/amount", "/currency")
FEE = Measure("amount", "/fee", "/currency")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"amount": -1, "currency": "EUR"},
        {"amount": True, "currency": "EUR"},
        {"amount": 1.0, "currency": "EUR"},
        {"amount": 2**53, "currency": "EUR"},
        {"amount": 1},
        {"amount": 1, "currency": "eur"},
        {"amount": 1, "currency": "EURO"},
        {"amount": 1, "currency": "ÄÖÜ"},
        {"amount": 1, "currency": 978},
        {"amount": 2**53 - 1, "fee": 2**53 - 1, "currency": "EUR"},
    ],
)
def test_measures_are_read_strictly(arguments: dict[str, Any]) -> None:
    """An amount that could be counted wrongly is no amount."""
    with pytest.raises(InvalidArguments):
        amounts(make_tool(measures=(PAY, FEE) if "fee" in arguments else (PAY,)), arguments)


def test_measures_of_one_name_add_up() -> None:
    """Two pointers of one measure count together; one without a currency stands alone."""
    measures = (PAY, FEE, Measure("lines", "/lines/0"))
    found = amounts(make_tool(measures=measures), {"amount": 5, "fee": 2, "currency": "EUR", "lines": [3]})
    assert found == {"amount.EUR": 7, "lines": 3}
