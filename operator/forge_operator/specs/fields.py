"""The words for declaring fields of custom resources: `whole`, `decimal`, `seconds`, `moment`, `text`, `choice`, `part` and kin.

Each takes the description that `kubectl explain` shows, and returns a field of a dataclass.
Without a default a field reads as None when it is absent, unless it is `required`.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from forge_jobs.model import FOREVER
from forge_operator.specs.section import Field, InvalidSpec, Rule, Section, read, schema_of, wrong

T = TypeVar("T")

MOST = 2_147_483_647
"""The largest number of a field that nothing else bounds."""

MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
LONGEST_MOMENT = 35
"""How many characters it has at most."""

FOR_EVER = -1
"""How "for ever" is written where a number of attempts stands; a 0 could as well mean "no retry"."""


def flag(description: str, *, default: bool) -> Any:
    """Declare a yes or no."""
    return _field({"type": "boolean"}, _flag, description, default=default)


def whole(
    description: str, *, least: int = 0, most: int = MOST, default: int | None = None, required: bool = False
) -> Any:
    """Declare a whole number."""
    schema = _whole_schema(least, most)
    return _field(schema, _whole_of(least, most), description, default=default, required=required)


def decimal(description: str, *, least: float, most: float) -> Any:
    """Declare a number that need not be whole; it is required."""

    def read_decimal(value: object, path: str) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise wrong(path, value, f"a number from {least:g} to {most:g}")
        return float(value)

    schema = {"type": "number", "minimum": least, "maximum": most}
    return _field(schema, read_decimal, description, required=True)


def attempts(description: str, *, name: str, default: int | None = None) -> Any:
    """Declare a number of attempts: 1 or more, or FOR_EVER, which is FOREVER here. `name` is what people call the field."""
    number = _whole_of(FOR_EVER, MOST)
    rule = Rule(
        cel="self != 0",
        holds=lambda value: value != 0,
        message=f"{name} is 1 (no retry) or more, or -1 for ever",
    )

    def read_attempts(value: object, path: str) -> int:
        attempts_given = number(value, path)
        rule.check(attempts_given, path)
        return FOREVER if attempts_given == FOR_EVER else attempts_given

    schema = {**_whole_schema(FOR_EVER, MOST), "x-kubernetes-validations": [rule.schema()]}
    return _field(schema, read_attempts, description, default=default)


def seconds(
    description: str, *, least: int = 0, most: int = MOST, default: int | None = None, required: bool = False
) -> Any:
    """Declare a duration: whole seconds in YAML, where its name ends in Seconds, a timedelta here."""
    number = _whole_of(least, most)
    return _field(
        _whole_schema(least, most),
        lambda value, path: timedelta(seconds=number(value, path)),
        description,
        default=default,
        read_default=lambda value: timedelta(seconds=value),
        required=required,
        unit="Seconds",
    )


def moment(description: str) -> Any:
    """Declare a moment, as Kubernetes writes it; a datetime in UTC here."""

    def read_moment(value: object, path: str) -> datetime:
        if isinstance(value, str) and re.fullmatch(MOMENT, value, re.ASCII):
            with suppress(ValueError, OverflowError):
                return datetime.fromisoformat(value).astimezone(UTC)
        raise wrong(path, value, "a moment with its zone, like 2030-01-31T08:00:00Z")

    schema = {"type": "string", "format": "date-time", "maxLength": LONGEST_MOMENT, "pattern": MOMENT}
    return _field(schema, read_moment, description)


def text(
    description: str,
    *,
    most: int,
    least: int = 1,
    pattern: str | None = None,
    default: str | None = None,
    required: bool = False,
    rules: Sequence[Rule] = (),
) -> Any:
    """Declare a text of `least` to `most` characters."""
    schema, read_text = _text(least, most, pattern, rules)
    return _field(schema, read_text, description, default=default, required=required)


def texts(description: str, *, items: int, most: int, pattern: str) -> Any:
    """Declare a list of at most `items` different texts; a tuple here, empty by default."""
    schema, read_text = _text(1, most, pattern, ())

    def read_texts(value: object, path: str) -> tuple[str, ...]:
        values = tuple(read_text(item, at) for item, at in _items(value, path, 0, items))
        return _all_different(values, values, path)

    return _field(
        {"type": "array", "maxItems": items, "x-kubernetes-list-type": "set", "items": schema},
        read_texts,
        description,
        factory=tuple,
    )


def texts_by_name(description: str, *, items: int, most: int) -> Any:
    """Declare an object of at most `items` texts under names that people choose; empty by default."""
    schema, read_text = _text(0, most, None, ())

    def read_mapping(value: object, path: str) -> dict[str, str]:
        if not isinstance(value, Mapping) or len(value) > items:
            raise wrong(path, value, f"an object of at most {items} texts")
        return {name: read_text(item, f"{path}[{name}]") for name, item in value.items()}

    return _field(
        {"type": "object", "maxProperties": items, "additionalProperties": schema},
        read_mapping,
        description,
        factory=dict,
    )


def choice(description: str, choices: type[StrEnum], *, default: StrEnum | None = None) -> Any:
    """Declare one of a few words."""
    words = [member.value for member in choices]

    def read_choice(value: object, path: str) -> StrEnum:
        if not isinstance(value, str) or value not in words:
            raise wrong(path, value, f"one of {', '.join(words)}")
        return choices(value)

    return _field({"type": "string", "enum": words}, read_choice, description, default=default)


def part(description: str, section: type[Section], *, optional: bool = False, required: bool = False) -> Any:
    """Declare a section within a section. Absent, it has its defaults, or is None if `optional`."""
    schema = schema_of(section)
    absent: dict[str, Any] = {"required": True} if required else {} if optional else {"factory": section}
    if absent.get("factory"):
        # Rules are held against a default before it is itself completed; so one with rules has to be complete.
        schema = {"default": _defaults(schema) if section.RULES else {}, **schema}
    return _field(schema, lambda value, path: read(section, value, path), description, **absent)


def parts(description: str, section: type[Section], *, key: str, most: int, least: int = 0) -> Any:
    """Declare a list of sections that differ in the field `key`; a tuple here, empty by default."""
    schema = {
        "type": "array",
        "maxItems": most,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
        "items": schema_of(section),
    }
    if least:
        schema["minItems"] = least

    def read_parts(value: object, path: str) -> tuple[Section, ...]:
        sections = tuple(read(section, item, at) for item, at in _items(value, path, least, most))
        return _all_different(sections, [item[key] for item in value], path)  # type: ignore[attr-defined]

    if least:
        return _field(schema, read_parts, description, required=True)
    return _field(schema, read_parts, description, factory=tuple)


def as_written(description: str, shape: type[Section] | None = None) -> Any:
    """Declare an object that is kept as it was written, unknown fields and all.

    One with a `shape` is required and has to fit that; one without may hold anything and
    is empty by default.
    """
    if shape is None:
        schema = {"default": {}, "type": "object", "x-kubernetes-preserve-unknown-fields": True}
        return _field(schema, _mapping, description, factory=dict)

    def read_shape(value: object, path: str) -> Mapping[str, Any]:
        read(shape, value, path)
        return _mapping(value, path)

    return _field(schema_of(shape), read_shape, description, required=True)


def _field(
    schema: Mapping[str, Any],
    reader: Callable[[Any, str], Any],
    description: str,
    *,
    default: Any = None,
    read_default: Callable[[Any], Any] = lambda value: value,
    factory: Callable[[], Any] | None = None,
    required: bool = False,
    unit: str = "",
) -> Any:
    described = {"description": description, **schema}
    if default is not None:
        described["default"] = default.value if isinstance(default, StrEnum) else default
    metadata = {"field": Field(described, reader, unit)}
    if required:
        return dataclasses.field(metadata=metadata)
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=None if default is None else read_default(default), metadata=metadata)


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: below["default"] for name, below in schema["properties"].items() if "default" in below}


def _whole_schema(least: int, most: int) -> dict[str, Any]:
    return {
        "type": "integer",
        "format": "int32" if most <= MOST else "int64",
        "minimum": least,
        "maximum": most,
    }


def _text(
    least: int, most: int, pattern: str | None, rules: Sequence[Rule]
) -> tuple[dict[str, Any], Callable[[object, str], str]]:
    schema: dict[str, Any] = {"type": "string", "maxLength": most}
    if least:
        schema["minLength"] = least
    if pattern:
        schema["pattern"] = pattern
    if rules:
        schema["x-kubernetes-validations"] = [rule.schema() for rule in rules]

    def read_text(value: object, path: str) -> str:
        if not isinstance(value, str) or not least <= len(value) <= most:
            raise wrong(path, value, f"a text of {least} to {most} characters")
        if pattern and not re.fullmatch(pattern, value, re.ASCII):
            raise wrong(path, value, f"a text that matches {pattern}")
        for rule in rules:
            rule.check(value, path)
        return value

    return schema, read_text


def _whole_of(least: int, most: int) -> Callable[[object, str], int]:
    def read_whole(value: object, path: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise wrong(path, value, f"a whole number from {least} to {most}")
        return value

    return read_whole


def _flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(path, value, "true or false")
    return value


def _mapping(value: object, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise wrong(path, value, "an object")
    return value


def _items(value: object, path: str, least: int, most: int) -> list[tuple[object, str]]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise wrong(path, value, f"a list of {least} to {most} items")
    return [(item, f"{path}[{number}]") for number, item in enumerate(value)]


def _all_different(found: tuple[T, ...], keys: Sequence[object], path: str) -> tuple[T, ...]:
    twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
    if twice is not None:
        raise InvalidSpec(path, f" names {twice!r} twice")
    return found
