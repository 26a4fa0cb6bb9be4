"""How a program says the groups of its jobs: at once, or by a function of their arguments."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forge_jobs.codecs.encoded import Encoded
from forge_jobs.codecs.plain import decode
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.arguments import Arguments
from forge_jobs.model.group import Group, encoded
from forge_jobs.rules import groups

Groups = str | Group | Sequence[str | Group]
"""The groups of a job: a name, a Group, or several of these."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """The groups of jobs that are enqueued alike."""

    fixed: str | None = None  # the same for all, as they are stored
    function: Callable[..., Groups | None] | None = None  # of these arguments
    arguments: tuple[str, ...] = ()
    takes_all: bool = False

    @classmethod
    def given(cls, value: "Groups | Callable[..., Groups | None] | Grouping") -> "Grouping":
        """Return the grouping that the option `group` means. Raises InvalidInput."""
        if isinstance(value, cls):
            return value
        if not callable(value) or isinstance(value, Group):
            return cls(encoded(groups.groups(value)))
        parameters = inspect.signature(value).parameters.values()
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise InvalidInput(
                    f"group is a function with the parameter {parameter.name!r}, allowed are parameters by name."
                )
        named = tuple(
            parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD
        )
        return cls(None, value, named, takes_all=len(named) < len(parameters))

    def require_arguments(self, kind: str, arguments: Arguments) -> None:
        """Raise InvalidInput when the function takes an argument that the handler of `kind` does not have."""
        for name in self.arguments:
            if not arguments.takes(name):
                raise InvalidInput(
                    f"group takes the argument {name!r}, which {kind} does not have; "
                    f"it takes {', '.join(arguments.names) or 'nothing'}."
                )

    def of(self, kind: str, payload: Mapping[str, Any] | Encoded, defaults: Mapping[str, Any]) -> str | None:
        """Return the groups of a job with this payload, as they are stored; what it leaves out has these `defaults`.

        Raises InvalidInput when the payload lacks an argument that the function takes, or the function fails.
        """
        if self.function is None:
            return self.fixed
        said = decode(payload.payload, payload.codec) if isinstance(payload, Encoded) else payload
        known = {**defaults, **said}
        for name in self.arguments:
            if name not in known:
                raise InvalidInput(
                    f"group takes the argument {name!r}, which the payload of {kind!r} does not have."
                )
        asked = known if self.takes_all else {name: known[name] for name in self.arguments}
        try:
            value = self.function(**asked)
        except Exception as error:
            raise InvalidInput(
                f"The group of a job of {kind!r} is not known, since its function failed: {type(error).__name__}: {error}"
            ) from error
        return encoded(groups.groups(value))
