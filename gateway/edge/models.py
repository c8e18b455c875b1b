"""Models at the border: closed and strict, so that a member nobody knows is an error and not a guess."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.core.errors import MalformedRequest

_MAX_PROBLEMS = 5
M = TypeVar("M", bound=BaseModel)


class Model(BaseModel):
    """A request or answer at the border: unknown members are refused, nothing is coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class QueryModel(BaseModel):
    """Query parameters: unknown ones are refused; numbers arrive as text."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def modelled(model: type[M], value: Any) -> M:
    """``value`` as a closed model.

    Raises:
        MalformedRequest: it is not of that form; the first problems are named by their place.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[:_MAX_PROBLEMS]
        words = (f"{'.'.join(str(part) for part in item['loc']) or 'body'}: {item['msg']}" for item in found)
        raise MalformedRequest("; ".join(words), cause_code="model") from None
