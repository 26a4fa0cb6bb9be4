"""Rate limits by key that a handler declares: its jobs take tokens when they begin."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.arguments import Arguments
from forge_jobs.rules import names
from forge_jobs.rules.cost import checked_cost

KEYS = str, int, UUID


@dataclass(frozen=True, slots=True)
class KeyLimit:
    """A job begins when the bucket that its key has in the rate limit `scope` holds `cost` tokens; they are spent.

    `by` is the argument that is the key, or a function of the arguments; `cost` a number of
    tokens, or a function of the arguments. Raises InvalidInput.
    """

    scope: str
    by: str | Callable[..., str | int | UUID]
    cost: float | Callable[..., float] = 1

    def __post_init__(self) -> None:
        names.checked_name(self.scope, "rate limit")
        if not isinstance(self.by, str) and not callable(self.by):
            raise InvalidInput(
                f"by of a limit is {self.by!r}, allowed is the name of an argument, or a function of the arguments."
            )
        if not callable(self.cost):
            object.__setattr__(self, "cost", checked_cost(self.cost, "cost of a limit"))

    @property
    def is_plain(self) -> bool:
        """Whether its key and its cost can be told without any code of the program."""
        return not callable(self.by) and not callable(self.cost)

    def tokens_of(self, arguments: Mapping[str, Any]) -> tuple[str, str, float]:
        """Return the scope, the key and the cost of a job with these arguments. Raises InvalidInput."""
        key = self.by(**arguments) if callable(self.by) else arguments.get(self.by)
        if callable(self.cost):
            return self.tokens_for(key, checked_cost(self.cost(**arguments), "cost of a limit"))
        return self.tokens_for(key)

    def tokens_for(self, key: object, cost: float | None = None) -> tuple[str, str, float]:
        """Return the scope, the key and the cost (None: the limit's own, a number) of a job with this key. Raises InvalidInput."""
        if not isinstance(key, KEYS):
            raise InvalidInput(
                f"The key of rate limit {self.scope!r} is {key!r}, allowed is text, a whole number or a UUID."
            )
        return self.scope, names.key(str(key)), self.cost if cost is None else cost  # type: ignore[return-value]


def checked_limits(limits: object, kind: str, arguments: Arguments) -> Sequence[KeyLimit]:
    """Return the limits of a handler. Raises InvalidInput."""
    listed = [limits] if isinstance(limits, KeyLimit) else limits
    if not isinstance(listed, list | tuple) or not all(isinstance(limit, KeyLimit) for limit in listed):
        raise InvalidInput(f"limits of handler {kind!r} is {limits!r}, allowed is a list of KeyLimit.")
    for limit in listed:
        if isinstance(limit.by, str) and limit.by not in arguments.names:
            takes = ", ".join(arguments.names) or "nothing"
            raise InvalidInput(
                f"A limit of handler {kind!r} is by {limit.by!r}, allowed is one of its arguments: it takes {takes}."
            )
    return listed
