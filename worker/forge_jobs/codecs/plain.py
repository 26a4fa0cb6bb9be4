"""Values as bytes: how payloads and results are written down, and what they are read as.

`encode` and `decode` know codecs by name: "json", "msgpack", and those a program registers.
Which arguments a handler takes is in `handlers/arguments.py`.
"""

import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol
from uuid import UUID

import msgspec

from forge_jobs.codecs.bound import is_payload
from forge_jobs.codecs.wrapping import Wrapping
from forge_jobs.errors import InvalidInput, InvalidPayload, MissingCodec, UnfitPayload
from forge_jobs.model.error_text import sentence
from forge_jobs.model.job import MAX_PAYLOAD

NO_ARGUMENTS = b"{}"
"""The payload of a job without arguments, which is never sealed: who enqueues it needs no key."""

NOT_SHOWN = ", at a place that is not shown"

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,31}")


class Codec(Protocol):
    """How values become bytes and bytes values. Whatever either raises makes the payload invalid."""

    def encode(self, value: Any) -> bytes:
        """Return `value` as bytes."""

    def decode(self, payload: bytes) -> Any:
        """Return what was encoded, as plain objects or as the objects themselves (but enums as their values)."""


def register(name: str, codec: Codec | Wrapping) -> None:
    """Payloads may be written with `codec` under `name`, in this process.

    Every process that enqueues or runs such jobs has to register it. Raises InvalidInput
    when the name is ill-formed or one of the built-in codecs', or the codec is around one that is not registered.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"The name of a codec is {name!r}, allowed are 1 to 32 characters of a-z, 0-9, _, . and -, "
            "a letter first."
        )
    if name in _BUILT_IN:
        raise InvalidInput(f"The codec {name!r} is built in, allowed is any other name.")
    if isinstance(codec, Wrapping) and (codec.inner == name or name in _within(codec)):
        raise InvalidInput(f"The codec {name!r} would be around itself, allowed is one around another.")
    _codecs[name] = codec


def codecs() -> tuple[str, ...]:
    """Return the names of all codecs of this process, sorted."""
    return tuple(sorted(_codecs))


def encode(
    value: Any,
    codec: str = "json",
    *,
    limit: int = MAX_PAYLOAD,
    what: str = "payload",
    of: str = "",
    hidden: bool = False,
) -> bytes:
    """Return `value`, which is `what` in errors, as bytes, at most `limit` of them; codecs that bind values bind it to what it is `of`, as `bound` says.

    JSON and MessagePack take what JSON has, and datetimes, UUIDs, Decimals, enums, sets,
    dataclasses, msgspec Structs and pydantic models. Raises InvalidPayload, naming the place
    and type that cannot be written or would not be there when read (a float that is no number
    in JSON, keys that are one there), or the size and the limit. Where the codec hides values, or this one is to be `hidden`, no
    place is named: keys of mappings are values, too.
    """
    encoder = _codec(codec)
    if isinstance(encoder, Wrapping):
        is_hidden = hidden or hides(codec)
        inside = encode(value, innermost(codec), limit=sys.maxsize, what=what, hidden=is_hidden)
        return wrapped(inside, codec, limit=limit, what=what, of=of)
    try:
        payload = encoder.encode(value)
    except Exception as error:  # codecs and pydantic models are a program's own code
        is_hidden = hidden or hides(codec)
        said = _unencodable(value, codec, encoder, error, what, hidden=is_hidden)
        raise InvalidPayload(said) from (None if is_hidden else error)
    if not isinstance(payload, bytes):
        raise InvalidPayload(f"The codec {codec!r} made {type_name(payload)}, allowed is bytes.")
    if not _is_flat(value, _EXACT) and codec in _BUILT_IN:
        _require_whole(value, payload, codec, what, hidden=hidden)
    if len(payload) > limit:
        raise InvalidPayload(f"The {what} has {len(payload):,} bytes as {codec}, allowed are {limit:,}.")
    return payload


def decode(payload: bytes, codec: str = "json", *, what: str = "payload", of: str = "") -> Any:
    """Return what `payload`, which is `what` in errors and was written as `of`, says, as plain objects. Raises InvalidPayload; MissingCodec when its codec or key is not here."""
    payload, inner = opened(payload, codec, what=what, of=of)
    try:
        return _codecs[inner].decode(payload)  # type: ignore[union-attr]  # nothing is wrapped any more
    except InvalidPayload:
        raise
    except Exception as error:  # codecs are a program's own code
        why = type(error).__name__ if hides(codec) else sentence(error)
        raise InvalidPayload(f"The {what} cannot be read as {inner}: {why}.") from (
            None if hides(codec) else error
        )


def opened(payload: bytes, codec: str, *, what: str = "payload", of: str = "") -> tuple[bytes, str]:
    """Return what is in all wrappings of a payload, and the codec that reads that. Raises InvalidPayload, MissingCodec."""
    if payload == NO_ARGUMENTS and hides(codec) and is_payload(of):
        return payload, "json"
    while isinstance(wrapping := _reader(codec, what), Wrapping):
        try:
            payload = wrapping.unwrap_for(payload, of)
        except UnfitPayload as error:
            same = MissingCodec if isinstance(error, MissingCodec) else UnfitPayload
            raise same(f"The {what} cannot be read as {codec}: {sentence(error)}.") from None
        except Exception as error:  # codecs are a program's own code
            raise InvalidPayload(f"The {what} cannot be read as {codec}: {sentence(error)}.") from error
        codec = wrapping.inner
    return payload, codec


def wrapped(
    payload: bytes, codec: str, *, limit: int = MAX_PAYLOAD, what: str = "payload", of: str = ""
) -> bytes:
    """Return what the innermost codec of `codec` has written, in all of its wrappings. Raises InvalidPayload."""
    wrapping = _codec(codec)
    if isinstance(wrapping, Wrapping):
        payload = wrapped(payload, wrapping.inner, limit=sys.maxsize, what=what, of=of)
        try:
            payload = wrapping.wrap_for(payload, of)
        except Exception as error:  # codecs are a program's own code
            raise InvalidPayload(f"The {what} cannot be written as {codec}: {sentence(error)}.") from error
    if len(payload) > limit:
        raise InvalidPayload(f"The {what} has {len(payload):,} bytes as {codec}, allowed are {limit:,}.")
    return payload


def innermost(codec: str) -> str:
    """Return the codec that is in all wrappings of this one: itself, if it is none. Raises UnfitPayload when there is no such codec."""
    while isinstance(wrapping := _codec(codec), Wrapping):
        codec = wrapping.inner
    return codec


def hides(codec: str) -> bool:
    """Whether what is written with this codec is for handlers only, and those who wait for results."""
    found = _codecs.get(codec)
    return bool(getattr(found, "hides", False)) or (isinstance(found, Wrapping) and hides(found.inner))


def _to_plain(value: Any) -> Any:
    """Return a pydantic model (known by its methods: it may not be installed) as plain objects."""
    dump = getattr(type(value), "model_dump", None)
    if dump is None:
        raise NotImplementedError
    return dump(value, mode="json", by_alias=True)


class _Msgspec:
    """A codec that msgspec has."""

    def __init__(self, encoder: Any, decoder: Any) -> None:
        self.encode: Callable[[Any], bytes] = encoder(enc_hook=_to_plain).encode
        self.decode: Callable[[bytes], Any] = decoder().decode


_BUILT_IN: Mapping[str, Codec] = {
    "json": _Msgspec(msgspec.json.Encoder, msgspec.json.Decoder),
    "msgpack": _Msgspec(msgspec.msgpack.Encoder, msgspec.msgpack.Decoder),
}

_codecs: dict[str, Codec | Wrapping] = dict(_BUILT_IN)


def _codec(name: str) -> Codec | Wrapping:
    try:
        return _codecs[name]
    except (KeyError, TypeError):
        raise UnfitPayload(f"There is no codec {name!r}; codecs: {', '.join(codecs())}.") from None


def _reader(name: str, what: str) -> Codec | Wrapping:
    """Return the codec to read with. Raises MissingCodec: that of a stored value is known where it was written."""
    try:
        return _codec(name)
    except UnfitPayload as error:
        raise MissingCodec(f"The {what} cannot be read here. {error}") from None


def _within(wrapping: Wrapping) -> Iterator[str]:
    """Yield the names of the codecs that it is around. Raises UnfitPayload when one of them is not registered."""
    while isinstance(found := _codec(wrapping.inner), Wrapping):
        yield wrapping.inner
        wrapping = found


_SCALARS = frozenset(
    {type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, UUID, Decimal}
)
_EXACT = _SCALARS - {float}  # what is no number in JSON becomes null
_TEXT = frozenset({str})
_LISTS = frozenset({list, tuple, set, frozenset})
_Place = tuple["_Place", Any] | None  # of what it is a part, and its name there


def _is_flat(value: Any, plain: frozenset[type]) -> bool:
    """Whether `value` is of the `plain` types, or a dict of such. Most payloads and results are, and need
    no conversion.
    """
    if type(value) is not dict:
        return type(value) in plain
    for key, part in value.items():  # for the few of a payload the quickest way
        if type(key) is not str or type(part) not in plain:
            return False
    return True


def _require_whole(value: Any, payload: bytes, codec: str, what: str, *, hidden: bool) -> None:
    """Raise InvalidPayload when a part of `value` is not in `payload`, though the codec, a built-in one, did not mind."""
    # Without a null no float has to be looked at.
    plain = _EXACT if codec == "json" and b"null" in payload else _SCALARS
    if _is_flat(value, plain):
        return
    waiting: list[tuple[Any, _Place]] = [(value, None)]
    while waiting:
        part, place = waiting.pop()
        problem: str | None = None
        kind = type(part)
        if kind in plain:
            continue
        inner: Iterable[tuple[Any, Any]]
        if kind is dict or isinstance(part, Mapping):
            if not _TEXT.issuperset(map(type, part)):
                problem = _same_key(part, codec)
            inner = () if plain.issuperset(map(type, part.values())) else part.items()
        elif kind in _LISTS:
            inner = () if plain.issuperset(map(type, part)) else enumerate(part)
        elif kind is float:
            inner = ()
            if not math.isfinite(part):
                problem = f"{part!r} is no number in JSON"
        elif isinstance(part, Enum):
            inner = (("value", part.value),)
        else:
            inner = _fields(part)
        if problem is not None:
            where = NOT_SHOWN if hidden else f" at {_path(place)} ({problem})"
            raise InvalidPayload(f"The {what} cannot be written as {codec}: {type_name(part)}{where}.")
        waiting.extend([(value, (place, name)) for name, value in inner])


def _same_key(part: Mapping[Any, Any], codec: str) -> str | None:
    """Return what is wrong with the keys when two become one in writing, or one is no number; else None."""
    written: dict[Any, Any] = {}
    for key in part:
        if codec == "json" and isinstance(key, float) and not math.isfinite(key):
            return f"its key {key!r} is no number in JSON"
        [name] = [key] if type(key) is str else decode(_BUILT_IN[codec].encode({key: None}), codec)
        if name in written:
            return f"its keys {written[name]!r} and {key!r} are one key"
        written[name] = key
    return None


def _path(place: _Place) -> str:
    names: list[str] = []
    while place is not None:
        place, name = place
        names.append(_step(name))
    return "".join(["$", *reversed(names)])


def _unencodable(value: Any, codec: str, encoder: Codec, error: Exception, what: str, *, hidden: bool) -> str:
    if isinstance(error, RecursionError):
        return f"The {what} cannot be written as {codec}: it is nested too deeply, or holds itself."
    place, culprit = _culprit(value, "$", encoder)
    where = NOT_SHOWN if hidden else f" at {place}{_reason(error)}"
    return f"The {what} cannot be written as {codec}: {type_name(culprit)}{where}."


def _culprit(value: Any, place: str, encoder: Codec) -> tuple[str, Any]:
    """Return where in `value` the innermost part is that cannot be encoded, and that part."""
    for name, part in parts(value):
        try:
            encoder.encode(part)
        except Exception:  # any refusal is what is looked for
            return _culprit(part, f"{place}{name}", encoder)
    return place, value


def parts(value: Any) -> list[tuple[str, Any]]:
    """Return what `value` holds, each with the name of its place in it: `.key` or `[index]`."""
    if isinstance(value, Mapping):
        return [(_step(key), part) for key, part in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    return [(_step(name), part) for name, part in _fields(value)]


def _step(name: object) -> str:
    return f".{name}" if isinstance(name, str) else f"[{name!r}]"


def _fields(value: Any) -> list[tuple[str, Any]]:
    """Return the fields of a Struct, dataclass, attrs class or pydantic model; none of anything else."""
    for fields in ("__struct_fields__", "__dataclass_fields__", "__attrs_attrs__", "model_fields"):
        declared: Iterable[Any] | None = getattr(type(value), fields, None)
        if declared is not None:
            names = [getattr(name, "name", name) for name in declared]
            return [(name, getattr(value, name)) for name in names if hasattr(value, name)]
    return []


def _reason(error: Exception) -> str:
    """Return what the codec says, unless it is only that it does not know the type."""
    return "" if isinstance(error, NotImplementedError) else f" ({sentence(error)})"


def type_name(value: Any) -> str:
    """Return the name of the value's type, with its module unless it is built in."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
