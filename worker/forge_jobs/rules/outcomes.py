"""What a function that does many things in one call says of each of them."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast


def of_each(returned: Any, count: int, what: str) -> Sequence[Any]:
    """Return what became of each of `count` jobs or items (`what`), in their order: a value, or an exception.

    `returned` is what the function returned: a list with one of these for each, or None when all are done. Raises
    TypeError or ValueError for anything else.
    """
    if returned is None:
        return [None] * count
    if not isinstance(returned, list | tuple):
        raise TypeError(
            f"a batch of {count} {what}s returned a {type(returned).__name__}, "
            f"allowed is a list with an outcome for each {what}, or None"
        )
    if len(returned) != count:
        raise ValueError(f"returned {len(returned)} outcomes for {count} {what}s")
    return [_made(outcome) if _is_exception_class(outcome) else outcome for outcome in returned]


def _made(kind: Any) -> BaseException:
    """Return an exception of a class that was returned as it is; a class that wants arguments concerns this outcome only."""
    for make in (kind, partial(kind.__new__, kind)):
        with suppress(BaseException):
            made = make()
            if issubclass(type(made), BaseException):
                return cast(BaseException, made)
    return RuntimeError(f"returned the class {kind.__name__}, which cannot be made without arguments")


def _is_exception_class(outcome: object) -> bool:
    """Whether it could be raised as it is: `Dead` in place of `Dead()`."""
    # what isinstance() would ask first, `__class__`, may raise in a program's own type
    return issubclass(type(outcome), type) and issubclass(cast(type, outcome), BaseException)
