"""Large bodies are worked on elsewhere, small ones at once: the rule itself, with a fake that only notes."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from msgspec import structs

from gateway.core.call import Live, Raw, Redacted, Verified
from gateway.core.flow import Flow
from gateway.core.known import KnownValues
from gateway.core.needles import Needles
from gateway.core.redact import AT_ONCE_BYTES, KNOWN_VALUE, Bounds, Redactor, cleaned, holding
from tests.at_once import at_once
from tests.evidence import lease, make_call, make_caller, make_tool
from tests.unit.test_flow import ALL, Line

SECRET = "s3cret-of-the-gateway"


@dataclass
class Elsewhere:
    """Does the work where it is, and notes what for; ``meanwhile`` happens while the first body is worked on."""

    seen: list[int] = field(default_factory=list)
    meanwhile: Callable[[], None] | None = None

    async def cleaned(
        self, body: bytes, needles: tuple[Needles, ...], bounds: Bounds
    ) -> tuple[bytes, Mapping[str, int]]:
        """As the redactor would."""
        self.seen.append(len(body))
        self._let()
        return cleaned(body, needles, bounds)

    async def holding(self, body: bytes, needles: tuple[Needles, ...], bounds: Bounds) -> bool:
        """As the redactor would."""
        self.seen.append(-len(body))
        self._let()
        return holding(body, needles, bounds)

    def _let(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


def result(text: str, length: int = 0) -> bytes:
    """A tool result of one text, ``length`` bytes long if that is more."""
    body = b'{"content":[{"type":"text","text":"' + text.encode()
    return body + b"x" * (length - len(body) - 4) + b'"}]}'


def redacted(redactor: Redactor, body: bytes) -> Redacted:
    """What becomes of a result."""
    return at_once(redactor.redact(Verified(Raw(lease(make_tool()), body, {}))))


@pytest.mark.parametrize("more", [0, 1])
def test_only_large_bodies_go_elsewhere(more: int) -> None:
    """Up to the bound a result is redacted at once; over it elsewhere, with the same outcome."""
    aside = Elsewhere()
    redactor, body = Redactor(KnownValues([SECRET]), aside=aside), result(SECRET, AT_ONCE_BYTES + more)
    assert len(body) == AT_ONCE_BYTES + more
    found = redacted(redactor, body)
    assert KNOWN_VALUE in found.body.decode()
    assert found.counts == {"known_value": 1}
    assert at_once(redactor.holds(body)) is True
    assert aside.seen == [len(body), -len(body)] * more


def test_without_another_place_they_are_worked_on_here() -> None:
    """Nothing is let through because there is nobody to look at it."""
    redactor, body = Redactor(KnownValues([SECRET])), result(SECRET, 2 * AT_ONCE_BYTES)
    assert SECRET not in redacted(redactor, body).body.decode()
    assert at_once(redactor.holds(body)) is True


def test_the_callers_own_token_goes_along() -> None:
    """It is taken out of large results, too; a clean one keeps its very bytes and its value."""
    redactor = Redactor(KnownValues([SECRET]), aside=Elsewhere())
    given = lease(make_tool())
    call = structs.replace(make_call("up.echo"), origin=Live("the-callers-own-token"))
    quota = given.intent.quota
    target = structs.replace(quota.permit.target, caller=structs.replace(make_caller(call)))
    intent = structs.replace(
        given.intent, quota=structs.replace(quota, permit=structs.replace(quota.permit, target=target))
    )
    body = result("it is the-callers-own-token", 2 * AT_ONCE_BYTES)
    found = at_once(redactor.redact(Verified(Raw(structs.replace(given, intent=intent), body, {}))))
    assert "the-callers-own-token" not in found.body.decode()
    clean = result("nothing", 2 * AT_ONCE_BYTES)
    value: dict[str, object] = {}
    same = at_once(redactor.redact(Verified(Raw(given, clean, value))))
    assert same.body is clean
    assert same.value is value


@pytest.mark.requirement("REDACT-1")
def test_what_is_learnt_meanwhile_is_taken_out_too() -> None:
    """A body may wait for minutes: what was minted or resolved since is a secret when it comes back."""
    known, aside = KnownValues([SECRET]), Elsewhere()
    redactor, body = Redactor(known, aside=aside), result(f"{SECRET} and minted-meanwhile", 2 * AT_ONCE_BYTES)
    aside.meanwhile = lambda: known.lend("minted-meanwhile")
    found = redacted(redactor, body)
    assert b"minted-meanwhile" not in found.body
    assert found.counts == {"known_value": 2}
    late = result("another-minted-meanwhile", 2 * AT_ONCE_BYTES)
    aside.meanwhile = lambda: known.lend("another-minted-meanwhile")
    assert at_once(redactor.holds(late)) is True
    assert at_once(redactor.holds(result("nothing", 2 * AT_ONCE_BYTES))) is False


def test_what_was_taken_out_of_notices_is_counted_with_it() -> None:
    """Also where the result was redacted elsewhere."""
    redactor = Redactor(KnownValues([SECRET]), aside=Elsewhere())
    flow = Flow(ALL, lambda body: (body, {}), Line().deliver, lambda: None)
    flow.redacted = Counter({"known_value": 2})
    given = lease(make_tool())
    quota = given.intent.quota
    caller = quota.permit.target.caller
    target = structs.replace(
        quota.permit.target, caller=structs.replace(caller, call=structs.replace(caller.call, flow=flow))
    )
    intent = structs.replace(
        given.intent, quota=structs.replace(quota, permit=structs.replace(quota.permit, target=target))
    )
    body = result(SECRET, 2 * AT_ONCE_BYTES)
    found = at_once(redactor.redact(Verified(Raw(structs.replace(given, intent=intent), body, {}))))
    assert found.counts == {"known_value": 3}
