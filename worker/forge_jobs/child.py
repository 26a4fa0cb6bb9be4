"""What runs in the process of its own that an `executor="process"` handler gets.

Only names and plain values cross: the child imports the handler's module itself.
"""

import importlib
import sys
from typing import Any

from forge_jobs.context import Context
from forge_jobs.errors import InvalidInput
from forge_jobs.job import Claim


class NoTokens:
    """Rate limits are leased by the worker's event loop, which a child process does not have."""

    async def acquire(self, scope: str, tokens: int = 1, *, wait: object = None) -> None:
        raise InvalidInput("rate_limit cannot be used in a handler with executor='process'.")

    async def drain(self, scope: str) -> None:
        raise InvalidInput("rate_limit cannot be used in a handler with executor='process'.")


def call(module: str, name: str, claim: Claim | None, queue: str, arguments: dict[str, Any]) -> Any:
    """Return what the handler `name` of `module` returns for these arguments."""
    if module == "__main__":
        module = "__mp_main__" if "__mp_main__" in sys.modules else "__main__"
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    # The name is a Handler when its function was decorated; otherwise it was declared some other way.
    function, forge = getattr(found, "function", found), getattr(found, "forge", None)
    context = [] if claim is None else [Context(claim, queue, forge, NoTokens())]  # type: ignore[arg-type]
    return function(*context, **arguments)
