"""What a handler returned: a result only if nothing of it has still to run.

Calling an async function or a generator function runs nothing of it, and a decorator or
a lambda may hide what a function is. So what a call returned decides: `settled` awaits it
where it can be awaited, and whatever still has not run is no result. A job is never done
without having run.
"""

import asyncio
import contextlib
import functools
import inspect
import itertools
import types
from collections.abc import Awaitable, Mapping
from concurrent.futures import Future
from typing import Any

import msgspec

from forge_jobs.codecs.bound import result_of
from forge_jobs.codecs.plain import encode, parts
from forge_jobs.errors import InvalidPayload
from forge_jobs.model.decision import Retry
from forge_jobs.model.error_text import describe
from forge_jobs.model.mask import masked

LONGEST_RESULT = 16 * 1024 * 1024  # bytes

PLAIN = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})
"""Types of values that need not run, so most results need no second look."""

MOST_AWAITED = 10  # awaitables that return one another
DEEPEST = 50  # levels of a result that are searched

_TO_RUN: Mapping[type, str] = {
    types.CoroutineType: "a coroutine",
    types.GeneratorType: "a generator",
    types.AsyncGeneratorType: "an async generator",
    types.FunctionType: "a function",
    types.MethodType: "a method",
    functools.partial: "a partial",
    map: "a map",
    filter: "a filter",
    itertools.starmap: "a starmap",
    contextlib._GeneratorContextManager: "a context manager",
    contextlib._AsyncGeneratorContextManager: "an async context manager",
}


class KeptResult(msgspec.Struct, gc=False):
    """What is kept of a result: `encoded` with the job's codec, or a `note` that says why not."""

    encoded: bytes | None = None
    note: str | None = None


def kept_result(result: Any, codec: str, job_id: int) -> KeptResult:
    """Return what is kept of `result`, the job's. The work is done, so a result that cannot be kept becomes a note:
    another attempt would do the work twice. Raises Retry when it holds work that has not run."""
    if type(result) is KeptResult:
        return result
    if result is None:
        return KeptResult()
    try:
        of = "" if codec == "json" else result_of(job_id)  # which needs none, and is what most are
        return KeptResult(encode(result, codec, limit=LONGEST_RESULT, what="result", of=of))
    except InvalidPayload as problem:
        require_run(result)
        why = masked(str(problem))
    except BaseException as problem:  # the program's own types may raise anything when they are looked at
        why = describe(problem)
    return KeptResult(note=f"done, but its result was not kept: {why}")


async def settled(returned: Any) -> Any:
    """Return `returned`, awaited when it is awaitable or the future of an executor.

    Raises Retry when it is work that nothing runs, such as a generator.
    """
    for _ in range(MOST_AWAITED):
        awaited = _awaited(returned)
        if awaited is None:
            require_run(returned)
            return returned
        returned = await awaited
    raise Retry(reason="The handler returned an awaitable that returns another awaitable, again and again.")


def _awaited(returned: Any) -> Awaitable[Any] | None:
    """Return what to await for `returned`; None when `returned` itself is the result."""
    try:
        if isinstance(returned, Future):
            return asyncio.wrap_future(returned)
        return returned if inspect.isawaitable(returned) else None
    except BaseException:  # its own type raises when it is looked at
        return None


def require_run(returned: Any) -> None:
    """Raise Retry when `returned` is, or holds, work that has not run. Nothing runs it later."""
    try:
        rest = _to_run(returned, "", DEEPEST)
    except BaseException:  # its own type raises when it is looked at
        return
    if rest:
        raise Retry(
            reason=f"The handler returned {rest}, whose work is not done; "
            "allowed is a function that does its work when it is called or awaited."
        )


def _to_run(value: Any, place: str, levels: int) -> str | None:
    """Say what in `value` has not run, and where."""
    what = _TO_RUN.get(type(value))
    if isinstance(value, Future | asyncio.Future):
        what = None if value.done() else "what still runs"
    elif what is None and inspect.isawaitable(value):
        what = f"an unawaited {type(value).__name__}"
    if what:
        return f"{what} at ${place}" if place else what
    if levels:
        for name, part in parts(value):
            if rest := _to_run(part, f"{place}{name}", levels - 1):
                return rest
    return None
