"""How a program declares work. Offered here is what annotations need besides the names in `forge_jobs`."""

from typing import TYPE_CHECKING

from forge_jobs.rooms import offering

if TYPE_CHECKING:
    from forge_jobs.handlers.context_tokens import ContextTokens
    from forge_jobs.handlers.cron_options import CronValues
    from forge_jobs.handlers.flow_context import ContextFlow
    from forge_jobs.handlers.handler import Handlers, HandlerWithOptions
    from forge_jobs.handlers.options import HandlerValues, OptionValues
else:
    __getattr__ = offering(__name__, "options", "handler", "context_tokens", "cron_options", "flow_context")

__all__ = [
    "ContextFlow",
    "ContextTokens",
    "CronValues",
    "HandlerValues",
    "HandlerWithOptions",
    "Handlers",
    "OptionValues",
]
