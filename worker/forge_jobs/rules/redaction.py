"""What is shown of arguments and results of which some are redacted, and what must not be in texts about them. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import UUID

from forge_jobs.codecs.plain import NO_ARGUMENTS, parts
from forge_jobs.errors import InvalidInput
from forge_jobs.model.mask import present
from forge_jobs.model.redaction import HIDDEN, Redacted, covers
from forge_jobs.rules.names import shown

NUMBERS = (int, float, Decimal)
SHORTEST_NUMBER = 4  # characters; a shorter one says little, and would hide what it is not
VALUES = (str, bytes, *NUMBERS, UUID, datetime, date, time, timedelta)


def checked(redact: object, kind: str) -> Redacted:
    """Return what the option `redact` of the handler of a kind means. Raises InvalidInput."""
    if redact is None or isinstance(redact, bool):
        return bool(redact)
    named = [redact] if isinstance(redact, str) else redact
    if not isinstance(named, Iterable) or isinstance(named, Mapping | bytes):
        raise InvalidInput(
            f"redact of handler {kind!r} is {shown(redact)}, allowed is True, or names of arguments."
        )
    names = tuple(dict.fromkeys(named))
    for name in names:
        if not isinstance(name, str) or not name:
            raise InvalidInput(
                f"redact of handler {kind!r} names {shown(name)}, allowed is True, or names of arguments."
            )
    return names


def require_sealed(kind: str, wanted: str, codec: str, payload: bytes, *, is_sealed: bool) -> None:
    """Raise InvalidInput when arguments of a kind that has to be sealed would be stored for everybody to read."""
    if is_sealed and codec != wanted and payload.strip() != NO_ARGUMENTS:
        raise InvalidInput(
            f"Jobs of kind {kind!r} are sealed, and the payload is {codec}; allowed is the codec {wanted!r}, "
            "which a program has that registers it, or no arguments."
        )


def visible(value: Any, redacted: Redacted) -> Any:
    """Return a value of plain objects without what is redacted."""
    if not redacted or value is None:
        return value
    if redacted is True:
        return HIDDEN
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if covers(redacted, name) else visible(part, redacted)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [visible(part, redacted) for part in value]
    return value


def secrets(arguments: Mapping[str, Any], redacted: Redacted) -> Iterator[str]:
    """Yield the texts in which an exception may show redacted arguments: as they are, and as others write them."""
    for value in _values(arguments, redacted, within=redacted is True):
        yield from _texts(value)


def hide(value: Any) -> None:
    """No text that is made here from now on shows what is redacted in a value which the handler gets besides its arguments."""
    mask = present.get()
    if mask is not None:
        mask.add(secrets({"": value}, mask.redacted))


def _values(arguments: Mapping[str, Any], redacted: Redacted, *, within: bool) -> Iterator[Any]:
    """Yield what is redacted in the arguments, all if they are `within` something that is; keys of mappings, too, but no names of arguments."""
    waiting = [(part, within or covers(redacted, name)) for name, part in arguments.items()]
    while waiting:
        part, within = waiting.pop()
        if isinstance(part, Enum):
            part = part.value
        if isinstance(part, VALUES) and not isinstance(part, bool):
            if within:
                yield part
        else:
            if within and isinstance(part, Mapping):
                waiting += [(key, True) for key in part]
            waiting += [(inner, within or covers(redacted, _name(place))) for place, inner in _parts(part)]


def _parts(part: Any) -> Sequence[tuple[str, Any]]:
    try:
        return parts(part)
    except BaseException:  # a type of the program's, which has its own ways
        return ()


def _name(place: str) -> str:
    return place.removeprefix(".")


def _texts(value: Any) -> Iterator[str]:
    try:
        texts = {value.decode("utf-8", "replace")} if isinstance(value, bytes) else {str(value)}
        texts.add(repr(value).strip("'\""))
    except BaseException:  # a class of the program's below one of these
        return
    if isinstance(value, NUMBERS):
        texts = {text for text in texts if len(text) >= SHORTEST_NUMBER}
    for text in texts:
        yield text
        if isinstance(value, str):
            import json  # late, as all that a program which only enqueues has no use for

            yield from (json.dumps(text)[1:-1], quote(text, safe=""), quote(text), quote_plus(text))
