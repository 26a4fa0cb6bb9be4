"""What runs in the process of its own that an `executor="process"` handler gets.

Only names and plain values cross: the child imports the handler's module itself.
"""

import functools
import importlib
import os
import pathlib
import stat
import sys
from typing import Any

from forge_jobs import logs
from forge_jobs.context import Context
from forge_jobs.errors import InvalidInput
from forge_jobs.job import Claim


class NoTokens:
    """Rate limits are leased by the worker's event loop, which a child process does not have."""

    async def acquire(self, scope: str, tokens: int = 1, *, wait: object = None) -> None:
        raise InvalidInput("rate_limit cannot be used in a handler with executor='process'.")

    async def drain(self, scope: str) -> None:
        raise InvalidInput("rate_limit cannot be used in a handler with executor='process'.")


def call(
    module: str,
    name: str,
    claim: Claim,
    queue: str,
    arguments: dict[str, Any],
    *,
    takes_context: bool,
    style: logs.Style | None,
) -> Any:
    """Return what the handler `name` of `module` returns for these arguments.

    What it prints goes to the worker's stderr; so do its log lines, which are written in this
    style and name the job. Without a style they are left to the handler's module.
    """
    _speak_up(os.getppid())
    if style is not None:
        logs.take_over(style)
    logs.current_claim.set(claim)
    logs.current_queue.set(queue)
    if module == "__main__":
        module = "__mp_main__" if "__mp_main__" in sys.modules else "__main__"
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    # The name is a Handler when its function was decorated; otherwise it was declared some other way.
    function, forge = getattr(found, "function", found), getattr(found, "forge", None)
    context = [Context(claim, queue, forge, NoTokens())] if takes_context else []  # type: ignore[arg-type]
    return function(*context, **arguments)


@functools.cache
def _speak_up(worker: int) -> None:
    """Standard output and error lead to the worker's standard error, where that can be opened; else nowhere.

    They were pipes that nobody reads: a program which the handler runs would wait for ever when they are full.
    """
    try:
        console = os.open(f"/proc/{worker}/fd/2", os.O_WRONLY | os.O_APPEND)
        if not _may_be_shared(worker, console):
            os.close(console)
            raise OSError("what the worker writes next would overwrite it")
    except OSError:
        console = os.open(os.devnull, os.O_WRONLY)
    os.dup2(console, 2)
    os.close(console)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _may_be_shared(worker: int, console: int) -> bool:
    """Whether two may write there: into anything but a file at whose end the worker does not write."""
    if not stat.S_ISREG(os.fstat(console).st_mode):
        return True
    facts = pathlib.Path(f"/proc/{worker}/fdinfo/2").read_text()
    [flags] = [line.split()[1] for line in facts.splitlines() if line.startswith("flags:")]
    return bool(int(flags, 8) & os.O_APPEND)
