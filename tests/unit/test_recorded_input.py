"""A policy input taken apart for the log, and put together again byte for byte, or not at all."""

import hashlib
from typing import Any

import pytest

from gateway.core import policy_input
from gateway.core.policy_input import with_arguments, without_arguments
from gateway.core.ports import PipelineSettings
from gateway.core.usage import Usage
from tests.evidence import AT_US
from tests.past import called


@pytest.mark.parametrize("arguments", [{}, {"n": 1}, b'{"n":1.50,"big":1e2}', b'{"id":9007199254740993}'])
def test_a_call_is_put_together_again(arguments: Any) -> None:
    """Lexemes and big integers included; the arguments come from the request."""
    target = called("erp.find", arguments)
    whole = policy_input.calling(target, Usage(), PipelineSettings(), AT_US)
    facts = without_arguments(whole)
    assert b'"args":' not in facts
    digest = hashlib.sha256(whole).hexdigest()
    assert with_arguments(facts, target.call.arguments.canonical, digest) == whole


@pytest.mark.parametrize(
    "arguments",
    [{}, {"n": 1}, {"args": {"args": {}}, "args_digest": '"args":{}'}, b'{"n":1.50}', b'{"id":9007199254740993}'],
)
@pytest.mark.parametrize("is_listing", [True, False])
def test_arguments_are_cut_out_as_if_each_member_had_been_read(arguments: Any, *, is_listing: bool) -> None:
    """Also where they look like the member that is cut out, and where the document holds them otherwise or not."""
    target = called("erp.find", arguments)
    whole = policy_input.calling(target, Usage(), PipelineSettings(), AT_US)
    if is_listing:
        whole = policy_input.listing(target, PipelineSettings(), AT_US)
    assert without_arguments(whole, target.call.arguments.canonical) == without_arguments(whole)


def test_a_listing_is_found_though_arguments_were_sent() -> None:
    """Whether a tool is hidden does not depend on them, so its document has none."""
    target = called("erp.find", {"n": 1})
    whole = policy_input.listing(target, PipelineSettings(), AT_US)
    digest = hashlib.sha256(whole).hexdigest()
    assert with_arguments(without_arguments(whole), target.call.arguments.canonical, digest) == whole
    assert with_arguments(without_arguments(whole), None, digest) == whole


def test_what_the_digest_does_not_confirm_is_not_given_out() -> None:
    """Other arguments, or none, of a call that had some."""
    whole = policy_input.calling(called("erp.find", {"n": 1}), Usage(), PipelineSettings(), AT_US)
    facts, digest = without_arguments(whole), hashlib.sha256(whole).hexdigest()
    assert with_arguments(facts, b'{"n":2}', digest) is None
    assert with_arguments(facts, None, digest) is None
