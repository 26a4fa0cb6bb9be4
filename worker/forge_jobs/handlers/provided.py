"""Parameters of a handler that get what the program provides (`forge.provide`): they are no arguments of its jobs."""

import inspect
from collections.abc import Hashable, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

from forge_jobs.errors import InvalidInput

T = TypeVar("T")


class _Mark:
    """What the annotation of such a parameter has, and nothing else."""

    def __repr__(self) -> str:
        return "PROVIDED"


PROVIDED: Any = _Mark()
"""The default of such a parameter, for type checkers: they ask for no argument then. It is never used."""

Provided = Annotated[T, PROVIDED]
"""`pool: Provided[Pool]` is a Pool for type checkers, and gets what `forge.provide(Pool, ...)` says."""


def provided(hints: Mapping[str, Any], function: str) -> dict[str, Hashable]:
    """Return what each of these parameters gets that gets anything. Raises InvalidInput where a hint is more than a Provided."""
    found: dict[str, Hashable] = {}
    for name, hint in hints.items():
        if _is_marked(hint):
            found[name] = get_args(hint)[0]
        elif any(_is_marked(part) for part in get_args(hint)):
            raise InvalidInput(
                f"The parameter {name!r} of {function} is {hint}, allowed is Provided[...] by itself."
            )
    return found


def require_none(found: Mapping[str, Hashable], kind: str) -> None:
    """Raise InvalidInput when a handler that runs in a process of its own has such a parameter."""
    for name, what in found.items():
        raise InvalidInput(
            f"Handler {kind!r} with executor='process' takes Provided[{named(what)}] as {name!r}, which cannot be sent to "
            "a process; allowed is an async function, or a plain one in a thread."
        )


def _is_marked(hint: Any) -> bool:
    return get_origin(hint) is Annotated and any(note is PROVIDED for note in hint.__metadata__)


def is_left_out(parameter: inspect.Parameter) -> bool:
    """Whether whoever makes the call may leave the parameter out, and nothing is provided for it."""
    return parameter.default is not parameter.empty and parameter.default is not PROVIDED


def named(what: Hashable) -> str:
    """Return what is provided as its users write it."""
    return str(getattr(what, "__qualname__", None) or getattr(what, "__name__", what))
