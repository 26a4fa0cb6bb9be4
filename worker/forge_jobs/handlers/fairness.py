"""How a handler says on whose behalf its jobs are: by one of their arguments, or by a function of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forge_jobs.codecs.encoded import Payload
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.arguments import Arguments
from forge_jobs.handlers.of_arguments import OfArguments
from forge_jobs.rules import names, tenants

OPTION = "fair_by"


@dataclass(frozen=True, slots=True)
class Fairness:
    """Between whom the jobs of a handler are fair."""

    function: OfArguments

    @classmethod
    def given(cls, value: object) -> "Fairness":
        """Return what the option `fair_by` means. Raises InvalidInput."""
        if isinstance(value, str) and value.isidentifier():
            return cls(OfArguments(OPTION, lambda **said: said[value], (value,), takes_all=False))
        if isinstance(value, str) or not callable(value):
            raise InvalidInput(
                f"{OPTION} is {names.shown(value)}, allowed is the name of an argument, or a function of arguments."
            )
        return cls(OfArguments.given(OPTION, value))

    def require_arguments(self, kind: str, arguments: Arguments) -> None:
        """Raise InvalidInput when an argument is named that the handler of `kind` does not have."""
        self.function.require_arguments(kind, arguments)

    def of(self, kind: str, payload: Payload, defaults: Mapping[str, Any]) -> str | None:
        """Return the tenant of a job with this payload; what it leaves out has these `defaults`. None: it has none.

        Raises InvalidInput as `OfArguments.of` does, and when the value is no name of a tenant.
        """
        value = self.function.of(kind, payload, defaults)
        return None if value is None else tenants.tenant(value)
