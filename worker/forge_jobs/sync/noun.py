"""A noun of `forge.sync`: its calls are those of the noun of a forge, and are done when they return."""

from collections.abc import Coroutine
from typing import Any, Generic, Protocol, TypeVar

N = TypeVar("N")
T = TypeVar("T")


class Doer(Protocol):
    """Does work that uses a storage without an event loop."""

    def do(self, work: Coroutine[Any, Any, T], connection: Any = None) -> T:
        """Return what the work comes to, which is part of the transaction of a caller's `connection`."""


class SyncNoun(Generic[N]):
    """A noun of a forge, on a storage without an event loop, and who does what it is asked for."""

    def __init__(self, noun: N, doer: Doer) -> None:
        self._noun = noun
        self._do = doer.do
