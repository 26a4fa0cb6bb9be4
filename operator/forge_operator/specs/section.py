"""What a part of a custom resource is: fields, and rules between them.

One declaration gives three things: the schema that the API server applies, the default, and
how the operator reads a value. So `kubectl explain`, the API server and the operator cannot
disagree. `fields` has the words for declaring; what is declared with them is in the neighbours.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from forge_jobs import InvalidInput

LONGEST_SHOWN = 100
"""How much of a wrong value a sentence repeats, in characters."""


class InvalidSpec(InvalidInput):
    """A custom resource says something that is not allowed; nothing was changed.

    `path` is where: "spec.backoff.baseSeconds". The text is one full sentence.
    """

    def __init__(self, path: str, complaint: str) -> None:
        self.path = path
        super().__init__(f"{path}{complaint}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What must hold between fields: in CEL for the API server, in Python for one that does not know CEL.

    `holds` gets what the operator has read there, `cel` sees it as `self`, as it was written.
    """

    cel: str
    holds: Callable[[Any], bool]
    message: str
    at: str = ""  # the field to blame, seen from where the rule stands: ".minReplicas"
    reason: str = "FieldValueInvalid"

    def schema(self) -> dict[str, str]:
        """Return the rule as an item of x-kubernetes-validations."""
        rule = {"rule": self.cel, "message": self.message, "reason": self.reason}
        return rule | {"fieldPath": self.at} if self.at else rule

    def check(self, read: object, path: str) -> None:
        """The rule holds for what was read at `path`. Raises InvalidSpec."""
        if not self.holds(read):
            raise InvalidSpec((path + self.at).lstrip("."), f": {self.message}")


@dataclass(frozen=True, slots=True)
class Field:
    """What a field of a section is: its schema, and how a value of it is read."""

    schema: Mapping[str, Any]
    read: Callable[[Any, str], Any]  # (value, path) to what it means; raises InvalidSpec
    unit: str = ""  # what its name has at the end in YAML: Seconds


class Section:
    """A part of a custom resource. Its subclasses are frozen dataclasses, their fields come from `fields`."""

    __slots__ = ()
    RULES: ClassVar[tuple[Rule, ...]] = ()
    OPEN: ClassVar[bool] = False  # whether it may hold fields that are not declared


S = TypeVar("S", bound=Section)


def declared(section: type[Section]) -> Iterator[tuple[str, "dataclasses.Field[Any]", Field]]:
    """Yield each field's name in YAML, and both of its declarations."""
    for item in dataclasses.fields(section):  # type: ignore[arg-type]
        field: Field = item.metadata["field"]
        first, *others = item.name.split("_")
        yield first + "".join(other.capitalize() for other in others) + field.unit, item, field


def schema_of(section: type[Section]) -> dict[str, Any]:
    """Return the structural schema of a section."""
    schema: dict[str, Any] = {"type": "object"}
    required = [name for name, item, _ in declared(section) if is_required(item)]
    if required:
        schema["required"] = required
    if section.OPEN:
        schema["x-kubernetes-preserve-unknown-fields"] = True
    if section.RULES:
        schema["x-kubernetes-validations"] = [rule.schema() for rule in section.RULES]
    schema["properties"] = {name: dict(field.schema) for name, _, field in declared(section)}
    return schema


def read(section: type[S], raw: object, path: str) -> S:
    """Return what `raw`, found at `path`, means; what it does not say has its default.

    Fields that are not declared are passed over: a newer schema may have them. Raises
    InvalidSpec for the first thing that is not allowed.
    """
    if not isinstance(raw, Mapping):
        raise wrong(path, raw, "an object")
    values = {}
    for name, item, field in declared(section):
        if raw.get(name) is not None:
            values[item.name] = field.read(raw[name], f"{path}.{name}")
        elif is_required(item):
            raise InvalidSpec(f"{path}.{name}", " is missing")
    value = section(**values)
    for rule in section.RULES:
        rule.check(value, path)
    return value


def is_required(item: "dataclasses.Field[Any]") -> bool:
    """Whether a field has no default."""
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def wrong(path: str, value: object, allowed: str) -> InvalidSpec:
    """Return the error for a value that is not allowed."""
    shown = repr(value)
    if len(shown) > LONGEST_SHOWN:
        shown = f"{shown[:LONGEST_SHOWN]}…"
    return InvalidSpec(path, f" is {shown}, allowed is {allowed}")
