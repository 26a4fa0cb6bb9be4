"""Where a handler's function runs, and which functions can be one."""

import functools
import inspect
import sys
import types
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from forge_jobs.errors import InvalidInput

LAMBDA = "<lambda>"

MOST_SLOTS = 10_000  # as many as a worker may have


class Placement(StrEnum):
    """Where a handler's function runs."""

    LOOP = "loop"  # an async function, in the worker's event loop
    THREAD = "thread"  # a plain function
    PROCESS = "process"  # a plain function for CPU work, in a process of its own


def kind_of(function: Callable[..., Any]) -> str:
    """Return the kind that a handler has by its function's name."""
    _check_function(function, "The handler")
    name = getattr(function, "__name__", None)
    if not isinstance(name, str) or name == LAMBDA:
        what = "lambda" if name == LAMBDA else type(function).__name__
        raise InvalidInput(f"The handler is a {what}, which has no name, so kind='...' has to be given.")
    return name


def placement_of(function: Callable[..., Any], executor: str | None, kind: str) -> Placement:
    """Return where the function runs. Raises InvalidInput when calling it would not do its work."""
    _check_function(function, f"Handler {kind!r}")
    entered = _entered(function)
    for is_generator in (inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        if is_generator(entered):
            raise InvalidInput(
                f"Handler {kind!r} is a generator function, and calling it runs nothing; "
                "allowed is a function without yield."
            )
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(entered)
    if executor not in (None, "thread", "process"):
        raise InvalidInput(f"executor of handler {kind!r} is {executor!r}, allowed is 'thread' or 'process'.")
    if is_async and executor is not None:
        raise InvalidInput(
            f"Handler {kind!r} is async and has executor={executor!r}, allowed is a plain function."
        )
    if is_async:
        return Placement.LOOP
    if executor != "process":
        return Placement.THREAD
    if what := _not_importable(function):
        raise InvalidInput(
            f"Handler {kind!r} with executor='process' is {what}, which a process of its own cannot import; "
            "allowed is a function at the top of a module."
        )
    return Placement.PROCESS


def _not_importable(function: Callable[..., Any]) -> str | None:
    """Say what the function is when its module and name do not lead to it."""
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str) or inspect.ismethod(function):
        return f"a {type(function).__name__}"
    if name.endswith(LAMBDA):
        return "a lambda"
    if "." in name:
        around = name.rpartition(".")[0].removesuffix(".<locals>")
        return f"inside of {around}"
    if function.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        return "of a program without a file"
    return None


def slots_of(slots: object, kind: str) -> int:
    """Return how many slots of its worker a job of the kind takes. Raises InvalidInput."""
    if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= MOST_SLOTS:
        raise InvalidInput(
            f"slots of handler {kind!r} is {slots!r}, allowed is a whole number from 1 to {MOST_SLOTS:,}."
        )
    return slots


def _check_function(function: object, what: str) -> None:
    if inspect.isclass(function):
        raise InvalidInput(
            f"{what} is the class {function.__qualname__!r}, and calling it only makes an object; "
            "allowed is a function, a method, or an object that can be called."
        )
    if not callable(function):
        raise InvalidInput(f"{what} is {function!r}, allowed is a function.")


def _entered(function: Any) -> Any:
    """Return the function that a call enters first, behind wrappers that only pass calls on."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, staticmethod | types.MethodType):
            function = function.__func__
        elif inspect.isroutine(function):
            return function
        else:
            function = type(function).__call__  # an object that can be called
