"""The PolicyEngine port on a real OPA server."""

from gateway.adapters.opa.engine import Examination, OpaEngine
from gateway.adapters.opa.wire import OpaSettings

__all__ = ["Examination", "OpaEngine", "OpaSettings"]
