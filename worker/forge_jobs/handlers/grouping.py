"""How a program says the groups of its jobs: at once, or by a function of their arguments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forge_jobs.codecs.encoded import Payload
from forge_jobs.handlers.arguments import Arguments
from forge_jobs.handlers.of_arguments import OfArguments
from forge_jobs.model.group import Group, encoded
from forge_jobs.rules import groups

Groups = str | Group | Sequence[str | Group]
"""The groups of a job: a name, a Group, or several of these."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """The groups of jobs that are enqueued alike."""

    fixed: str | None = None  # the same for all, as they are stored
    function: OfArguments | None = None

    @classmethod
    def given(cls, value: "Groups | Callable[..., Groups | None] | Grouping") -> "Grouping":
        """Return the grouping that the option `group` means. Raises InvalidInput."""
        if isinstance(value, cls):
            return value
        if not callable(value) or isinstance(value, Group):
            return cls(encoded(groups.groups(value)))
        return cls(None, OfArguments.given("group", value))

    def require_arguments(self, kind: str, arguments: Arguments) -> None:
        """Raise InvalidInput when the function takes an argument that the handler of `kind` does not have."""
        if self.function is not None:
            self.function.require_arguments(kind, arguments)

    def of(self, kind: str, payload: Payload, defaults: Mapping[str, Any]) -> str | None:
        """Return the groups of a job with this payload, as they are stored; what it leaves out has these `defaults`.

        Raises InvalidInput when the payload lacks an argument that the function takes, or the function fails.
        """
        if self.function is None:
            return self.fixed
        return encoded(groups.groups(self.function.of(kind, payload, defaults)))
