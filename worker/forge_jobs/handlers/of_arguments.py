"""An option that is a function of a job's arguments, which it takes by their names."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from forge_jobs.codecs.encoded import Encoded, Payload
from forge_jobs.codecs.plain import decode
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.arguments import Arguments


@dataclass(frozen=True, slots=True)
class OfArguments:
    """The function of an option, and which arguments it takes."""

    option: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    takes_all: bool

    @classmethod
    def given(cls, option: str, function: Callable[..., Any]) -> "OfArguments":
        """Return the function as the value of an option. Raises InvalidInput when it does not take arguments by name."""
        parameters = inspect.signature(function).parameters.values()
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise InvalidInput(
                    f"{option} is a function with the parameter {parameter.name!r}, allowed are parameters by name."
                )
        named = tuple(
            parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD
        )
        return cls(option, function, named, takes_all=len(named) < len(parameters))

    def require_arguments(self, kind: str, arguments: Arguments) -> None:
        """Raise InvalidInput when the function takes an argument that the handler of `kind` does not have."""
        for name in self.arguments:
            if not arguments.takes(name):
                raise InvalidInput(
                    f"{self.option} takes the argument {name!r}, which {kind} does not have; "
                    f"it takes {', '.join(arguments.names) or 'nothing'}."
                )

    def of(self, kind: str, payload: Payload, defaults: Mapping[str, Any]) -> Any:
        """Return what the function returns for a job with this payload; what it leaves out has these `defaults`.

        Raises InvalidInput when the payload lacks an argument that the function takes, or the function fails.
        """
        said = decode(payload.payload, payload.codec, of=kind) if isinstance(payload, Encoded) else payload
        if isinstance(said, list | tuple):  # the only argument of a handler of lists
            said = dict.fromkeys(self.arguments, said)
        known = {**defaults, **said}
        for name in self.arguments:
            if name not in known:
                raise InvalidInput(
                    f"{self.option} takes the argument {name!r}, which the payload of {kind!r} does not have."
                )
        asked = known if self.takes_all else {name: known[name] for name in self.arguments}
        try:
            return self.function(**asked)
        except Exception as error:
            raise InvalidInput(
                f"The {self.option} of a job of {kind!r} is not known, since its function failed: "
                f"{type(error).__name__}: {error}"
            ) from error
