"""The type variables of handlers. What has a default need not be written: `Handler[P, R]` is a handler."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import (
        ParamSpec,
        TypeVar,
    )  # which type checkers know, whether or not it is installed

    P = ParamSpec("P")
    R = TypeVar("R")
    Q = ParamSpec("Q", default=...)
    V = TypeVar("V", default=Any)
else:
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")
    Q = ParamSpec("Q")
    V = TypeVar("V")

__all__ = ["P", "Q", "R", "V"]
