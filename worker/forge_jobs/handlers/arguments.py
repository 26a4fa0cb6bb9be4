"""The arguments of a handler, which are the payload of its jobs.

`Arguments` reads a handler's signature once; enqueue asks it whether a payload fits, and an
attempt decodes with it, so both refuse the same things.
"""

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from forge_jobs.codecs.plain import decode, encode, hides, innermost, opened, type_name, wrapped
from forge_jobs.errors import InvalidInput, InvalidPayload, UnfitPayload
from forge_jobs.handlers.provided import provided
from forge_jobs.model.error_text import sentence
from forge_jobs.model.job import MAX_PAYLOAD
from forge_jobs.model.redaction import Redacted, covers
from forge_jobs.rules.words import count

_asdict = msgspec.structs.asdict
_PLACE = re.compile(r" - at `(\$[^`]*)`$")


class Arguments:
    """What a handler takes: the names and types of its parameters, read once.

    `skip` leading parameters (a context) are not part of the payload. A parameter
    without annotation takes anything; one with a default may be left out, and the
    function's own default then applies. Names that the function does not have are
    refused unless it takes `**kwargs`. Parameters for what the program provides are none of them: `provided` says
    what each of these gets. Raises InvalidInput when the signature cannot
    be filled by name, or an annotation cannot be understood.
    """

    def __init__(self, function: Callable[..., Any], *, skip: int = 0) -> None:
        self.function = _name_of(function)
        self.redacted: Redacted = False  # what no error may show of the arguments
        self.kind = ""  # of the handler
        self.codec = "json"  # of the handler: where it hides, jobs with another one show nothing, too
        self.sealed_only = False  # whether payloads that everybody can write are refused
        parameters = _parameters(function, skip)
        self.hints = hints = resolved_hints(function, parameters)
        self.provided = provided(hints, self.function)
        parameters = [p for p in parameters if p.name not in self.provided]
        extra = [p for p in parameters if p.kind is p.VAR_KEYWORD]
        named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
        self.names = tuple(p.name for p in named)
        self._placed = tuple(p.name for p in named if p.kind is p.POSITIONAL_OR_KEYWORD)
        self.defaults = {p.name: p.default for p in named if p.default is not p.empty}
        self._takes_more = bool(extra)
        self._has_defaults = bool(self.defaults)
        more = hints[extra[0].name] if extra else Any
        try:
            self._struct = msgspec.defstruct(
                "Arguments",
                [_field(p, hints[p.name]) for p in named],
                kw_only=True,
                forbid_unknown_fields=not extra,
                gc=False,
            )
            self._more: Any = dict[str, more]  # type: ignore[valid-type]
            self.readers: dict[str, Callable[[bytes], Any]] = {}
            """By codec, those that read all of a payload in one step, for `named`."""
            if not extra:
                self.readers = {
                    "json": msgspec.json.Decoder(self._struct, dec_hook=from_plain).decode,
                    "msgpack": msgspec.msgpack.Decoder(self._struct, dec_hook=from_plain).decode,
                }
        except (TypeError, ValueError, NotImplementedError) as error:
            raise InvalidInput(
                f"The parameters of {self.function} cannot be read from a payload: {sentence(error)}."
            ) from error

    def takes(self, name: str) -> bool:
        """Whether a payload may have an argument of this name."""
        return name in self.names or self._takes_more

    def said(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a job, of those with which its handler is called, with defaults for what it leaves out."""
        own = {name: value for name, value in arguments.items() if name not in self.provided}
        return {**self.defaults, **own}

    def by_name(self, placed: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call that gives some by their place. Raises InvalidInput."""
        if len(placed) > len(self._placed):
            takes = ", ".join(self._placed) or "none"
            raise InvalidInput(
                f"{self.function} is given {count(len(placed), 'argument')} without a name, allowed: {takes}."
            )
        arguments = dict(zip(self._placed, placed, strict=False))
        for name in arguments.keys() & named.keys():
            raise InvalidInput(f"{self.function} is given {name!r} twice, by its place and by its name.")
        return {**arguments, **named}

    def decode(self, payload: bytes, codec: str = "json") -> dict[str, Any]:
        """Return the keyword arguments that `payload` holds, of the types that the handler names.

        Raises InvalidPayload when it cannot be read, and UnfitPayload when it can, but does not
        fit: a wrong type, an argument that is missing or unknown, a class that refuses it.
        """
        if self.sealed_only:
            self.require_sealed(codec)
        return self._decoded(payload, codec)

    def require_sealed(self, codec: str) -> None:
        """Raise InvalidPayload when the payload has this codec, and only sealed ones are taken."""
        if self.sealed_only and not hides(codec):
            raise InvalidPayload(
                f"The payload of {self.function} is {codec}, which everybody can write, allowed are sealed ones only."
            )

    def require_seal(self) -> None:
        """Raise InvalidInput when only sealed payloads are taken, and the codec of the handler does not seal."""
        if self.sealed_only and not hides(self.codec):
            raise InvalidInput(
                f"sealed_only of handler {self.kind!r} is given and its codec is {self.codec!r}, "
                "allowed is a codec that seals, and that is registered here."
            )

    def _decoded(self, payload: bytes, codec: str) -> dict[str, Any]:
        outer = codec
        try:
            reader = self.readers.get(codec)
            if reader is None:
                payload, codec = opened(payload, codec, of=self.kind)
                reader = self.readers.get(codec)
            if reader is None:
                return self._convert(decode(payload, codec))
            read = reader(payload)
        except InvalidPayload:
            raise
        except Exception as error:  # the classes of arguments are a program's own code
            raise self._refusal(payload, codec, error, hidden=self.hidden(outer)) from error
        return self.named(read)

    def named(self, read: Any) -> dict[str, Any]:
        """Return the keyword arguments that one of the `readers` has read."""
        if self._has_defaults:
            return {name: value for name, value in _asdict(read).items() if value is not msgspec.UNSET}
        return _asdict(read)

    def check(
        self,
        arguments: dict[str, Any],
        codec: str = "json",
        *,
        limit: int = MAX_PAYLOAD,
        hidden: bool = False,
    ) -> bytes:
        """Return `arguments` as a payload that `decode` has accepted. Raises InvalidPayload, which names no place in them if they are `hidden`."""
        reader = self.readers.get(codec)
        if reader is None and (inner := innermost(codec)) != codec:
            inside = self.check(arguments, inner, limit=sys.maxsize, hidden=hidden or hides(codec))
            return wrapped(inside, codec, limit=limit, of=self.kind)
        payload = encode(arguments, codec, limit=limit, hidden=hidden)
        try:
            if reader is not None:
                reader(payload)
                return payload
        except Exception:
            pass  # the next line says what is wrong
        self._decoded(payload, codec)
        return payload

    def _convert(self, plain: Any) -> dict[str, Any]:
        struct = msgspec.convert(plain, self._struct, dec_hook=from_plain)
        arguments = {name: value for name, value in _asdict(struct).items() if value is not msgspec.UNSET}
        if self._takes_more:
            more = {name: value for name, value in plain.items() if name not in self.names}
            arguments |= msgspec.convert(more, self._more, dec_hook=from_plain)
        return arguments

    def hidden(self, codec: str) -> Redacted:
        """Return what no text about a job may show whose payload has this codec."""
        return True if hides(codec) or hides(self.codec) else self.redacted

    def _refusal(self, payload: bytes, codec: str, error: Exception, *, hidden: Redacted) -> InvalidPayload:
        why = unfit(error, hidden)
        if not isinstance(error, msgspec.MsgspecError | UnicodeDecodeError | RecursionError):
            why = f"{type_name(error)}: {why}"
        takes = ", ".join(self.names) or "nothing"
        message = f"The payload of {self.function} is refused: {why}; it takes {takes}."
        try:
            decode(payload, codec)
        except InvalidPayload:
            return InvalidPayload(message)
        return UnfitPayload(message)


def unfit(error: Exception, hidden: Redacted, *, is_value: bool = False) -> str:
    """Return what is wrong with a payload, or with a value in it, on one line and without values that are hidden."""
    why = sentence(error)
    if not hidden:
        return why
    place = _PLACE.search(why)
    if not isinstance(error, msgspec.MsgspecError):
        return "what it says is not shown"
    if place is None:  # of all arguments: of their names, or of no value at all
        return "it does not fit, and is not shown" if is_value and hidden is True else why
    names = re.findall(r"\.([^.\[]+)|(\[\.\.\.\])", place[1])
    if hidden is True or any(unnamed or covers(hidden, name) for name, unnamed in names):
        return f"what is at `{place[1]}` does not fit, and is not shown"
    return why


def fitted(value: Any, wanted: Any, what: str) -> Any:
    """Return a plain value, which is `what` in errors, as an object of a type, as arguments are. Raises UnfitPayload."""
    try:
        return msgspec.convert(value, wanted, dec_hook=from_plain)
    except Exception as error:  # the class is a program's own code
        raise UnfitPayload(f"The {what} is no {_type_of(wanted)}: {sentence(error)}.") from error


def _type_of(wanted: Any) -> str:
    return wanted.__qualname__ if isinstance(wanted, type) else str(wanted)


def _parameters(function: Callable[..., Any], skip: int) -> Sequence[inspect.Parameter]:
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise InvalidInput(
                f"The parameter {str(parameter).split(':')[0]!r} of {_name_of(function)} cannot be given by name, "
                "allowed are parameters that can."
            )
    return parameters


def resolved_hints(function: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> dict[str, Any]:
    """Return the annotation of each parameter, resolved; those of a context or of the result are left alone. Raises InvalidInput."""
    annotations = {p.name: Any if p.annotation is p.empty else p.annotation for p in parameters}
    holder = types.SimpleNamespace(__annotations__=annotations)
    try:
        return typing.get_type_hints(holder, globalns=_globals(function), include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise InvalidInput(
            f"The annotations of {_name_of(function)} cannot be resolved: {sentence(error)}; "
            "allowed are names that its module knows at run time."
        ) from error


def _globals(function: Callable[..., Any]) -> dict[str, Any]:
    plain: Any = inspect.unwrap(function)
    while isinstance(plain, functools.partial):
        plain = inspect.unwrap(plain.func)
    if not hasattr(plain, "__globals__") and not inspect.ismethod(plain):
        plain = type(plain).__call__  # an object that can be called
    module: dict[str, Any] = getattr(plain, "__globals__", {})
    return module


def _field(parameter: inspect.Parameter, hint: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    if parameter.default is parameter.empty:
        return (parameter.name, hint)
    if parameter.default is None:
        hint = hint | None if hint is not Any else hint
    # UNSET is not checked against the type, and tells "left out" from whatever was given.
    return (parameter.name, hint, msgspec.UNSET)


def from_plain(wanted: type, value: Any) -> Any:
    """Return `value` as an object of a type that msgspec does not know."""
    if isinstance(value, wanted):
        return value
    validate = getattr(wanted, "model_validate", None)
    if validate is None:
        raise TypeError(f"Expected `{wanted.__name__}`, got `{type_name(value)}`")
    try:
        return validate(value)
    except ValueError as error:
        raise ValueError(_pydantic_sentence(error)) from error


def _pydantic_sentence(error: ValueError) -> str:
    """Return pydantic's findings on one line and without the values, which may be secret."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    return "; ".join(f"{'.'.join(map(str, error['loc'])) or 'value'}: {error['msg']}" for error in errors())


def _name_of(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__qualname__).replace("<locals>.", "")
