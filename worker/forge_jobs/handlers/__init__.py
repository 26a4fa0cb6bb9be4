"""How a program declares work. Offered here is what annotations need besides the names in `forge_jobs`."""

from forge_jobs.handlers.context import ContextTokens
from forge_jobs.handlers.handler import Handlers, HandlerWithOptions
from forge_jobs.handlers.options import OptionValues

__all__ = ["ContextTokens", "HandlerWithOptions", "Handlers", "OptionValues"]
