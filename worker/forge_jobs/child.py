"""What runs in the process of its own that an `executor="process"` handler gets.

Only names and plain values cross: the child imports the handler's module itself.
"""

import functools
import importlib
import inspect
import os
import pathlib
import stat
import sys
from concurrent.futures import Future
from typing import Any

from forge_jobs import logs
from forge_jobs.context import ChildContext
from forge_jobs.job import Claim
from forge_jobs.outcome import Retry
from forge_jobs.returned import KeptResult, kept_result


def call(
    module: str,
    name: str,
    claim: Claim,
    queue: str,
    arguments: dict[str, Any],
    *,
    takes_context: bool,
    style: logs.Style | None,
) -> KeptResult:
    """Return what the handler `name` of `module` returns for these arguments, encoded.

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
    context = [ChildContext(claim, queue, forge)] if takes_context else []  # type: ignore[arg-type]
    returned = function(*context, **arguments)
    if isinstance(returned, Future):
        returned = returned.result()
    if inspect.iscoroutine(returned):
        returned.close()
        raise Retry(
            reason="The handler returned a coroutine, and a process of its own has no loop that awaits it; "
            "allowed is a plain function."
        )
    return kept_result(returned, claim.codec)


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
