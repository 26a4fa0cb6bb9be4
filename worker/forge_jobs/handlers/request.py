"""What a program asks for when it enqueues: a job but for its payload, and how that is made of arguments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from forge_jobs.codecs.plain import encode
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.handler import Handler
from forge_jobs.handlers.options import Options
from forge_jobs.handlers.unique import Unique, require_arguments
from forge_jobs.model.job import Alike, NewJob


@dataclass(frozen=True, slots=True)
class Request:
    """Jobs of one kind with the same options."""

    pattern: NewJob
    encode: Callable[[Mapping[str, Any]], bytes]
    unique: Unique | None
    defaults: Mapping[str, Any]  # of the handler's arguments

    def job(self, arguments: Mapping[str, Any]) -> NewJob:
        """Return the job with these arguments. Raises InvalidPayload, InvalidInput."""
        job = replace(self.pattern, payload=self.encode(arguments))
        return job if self.unique is None else self.unique.applied(job, self.defaults)

    def jobs(self, payloads: Sequence[Mapping[str, Any]]) -> Alike | list[NewJob]:
        """Return a job for each of the payloads, which are encoded when they are needed unless each job has to be known."""
        if self.unique is None:
            return Alike(self.pattern, payloads, self.encode)
        return [self.job(payload) for payload in payloads]


def requested(kind: str, handler: Handler[Any, Any] | None, options: Options, limit: int) -> Request:
    """Return what is asked for with these options; `limit` is how many bytes a payload may have. Raises InvalidInput."""
    check: Callable[..., bytes] = encode
    merged, codec = options, "json"
    if handler is not None:
        if handler.is_singleton:
            _require_no_other_key(kind, options)
        if options.unique is not None:
            require_arguments(options.unique, kind, handler.arguments)
        merged, check, codec = options.over(handler.defaults), handler.arguments.check, handler.codec

    def encoded(payload: Mapping[str, Any]) -> bytes:
        if type(payload) is not dict and not isinstance(payload, Mapping):
            raise InvalidInput(
                f"The payload of {kind!r} is {payload!r}, allowed is a mapping of argument names."
            )
        return check(payload if type(payload) is dict else dict(payload), codec, limit=limit)

    pattern = merged.job(kind, b"", codec, declared=handler is not None)
    return Request(pattern, encoded, merged.unique, {} if handler is None else handler.arguments.defaults)


def _require_no_other_key(kind: str, options: Options) -> None:
    for name in ("key", "unique"):
        if getattr(options, name) is not None:
            raise InvalidInput(
                f"Handler {kind!r} is a singleton and {name} is given, allowed is one of them."
            )
