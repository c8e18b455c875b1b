"""What policy would say to somebody, asked in advance: nothing is executed, reserved or permitted.

What is supposed is no evidence: ``Supposed`` is none of the links of the evidence chain (``core/call.py``), so that a
question cannot be handed to a stage of the pipeline.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.core import measures, policy_input, resources, schema
from gateway.core.call import Call, Principal, Proof, Run, RunKind
from gateway.core.decision import Decision, fold, in_mode
from gateway.core.errors import InvalidArguments, NotFound
from gateway.core.ports import Ports
from gateway.core.tool import Tool
from gateway.core.usage import Usage

_NO_RUN = "00000000-0000-7000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class SupposedCaller:
    """Somebody, as if they had called, in a run of their own in which nothing has happened."""

    principal: Principal
    run: Run
    proofs: tuple[Proof, ...] = ()


@dataclass(frozen=True, slots=True)
class Supposed:
    """A call that nobody makes.

    Attributes:
        call: names the tool and holds the arguments.
        amounts: what the tool's measures find in them.
    """

    call: Call
    caller: SupposedCaller
    tool: Tool
    amounts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Word:
    """What policy says.

    Attributes:
        tool: the pinned tool it is about.
        listing: whether the tool may be known of.
        calling: whether it may be called so; None where the arguments have a fault, and policy would not be asked.
        faults: what is wrong with the arguments.
    """

    tool: Tool
    listing: Decision
    calling: Decision | None
    faults: tuple[str, ...] = ()


async def ask(call: Call, principal: Principal, ports: Ports, *, with_arguments: bool = True) -> Word:
    """Both phases' decisions on ``call`` as if ``principal`` had made it now.

    Without arguments, what the tool's schema asks of them is left out of account: rules that read arguments see none.

    Raises:
        NotFound: no such tool in the catalogue.
        TooLarge, Unavailable: as for a call.
    """
    tool = next((tool for tool in ports.catalog.tools() if tool.fqn == call.tool), None)
    if tool is not None and with_arguments:
        tool = resources.read(tool, call.arguments.value)
    if tool is None:
        raise NotFound("no such tool in the catalogue", cause_code="tool")
    faults, amounts = _read(call, tool) if with_arguments else ((), {})
    supposed = Supposed(call, SupposedCaller(principal, _run(call, principal)), tool, amounts)
    at_us, decision_id = ports.clock.now_us(), ports.clock.uuid()
    inputs = [policy_input.listing(supposed, ports.settings, at_us)]
    if not faults:
        inputs.append(policy_input.calling(supposed, Usage(), ports.settings, at_us))
    decisions = fold(decision_id, inputs, await ports.policy.evaluate(decision_id, inputs))
    bound = [in_mode(said, tool, observe=ports.settings.observe) for said in decisions]
    return Word(tool, bound[0], None if faults else bound[1], faults)


def _read(call: Call, tool: Tool) -> tuple[tuple[str, ...], Mapping[str, int]]:
    arguments = call.arguments
    if arguments.big_integers and not tool.big_integers:
        return ("an integer beyond 2^53 is not admitted by this tool",), {}
    problems = schema.compile(tool.definition.get("inputSchema", True)).problems(arguments.value)
    if problems:
        return tuple(problems), {}
    try:
        return (), measures.amounts(tool, arguments.value)
    except InvalidArguments as error:
        return (error.detail,), {}


def _run(call: Call, principal: Principal) -> Run:
    return Run(
        id=_NO_RUN,
        kind=RunKind.IMPLICIT,
        principal_key=principal.key,
        opened_by=principal.user,
        goal=None,
        scope=(),
        budget={},
        plan=(),
        started_us=call.at_us,
        expires_us=principal.expires_us,
    )
