"""What a program asks for when it enqueues: a job but for its payload, and how that is made of arguments."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from forge_jobs.codecs.encoded import Encoded, Payload
from forge_jobs.codecs.plain import encode
from forge_jobs.errors import InvalidInput, UnfitPayload
from forge_jobs.handlers.fairness import Fairness
from forge_jobs.handlers.grouping import Grouping
from forge_jobs.handlers.options import NAMES, Options
from forge_jobs.handlers.unique import Unique, require_arguments
from forge_jobs.model.job import MAX_PAYLOAD, Alike, KeyMode, NewJob
from forge_jobs.rules.merging import apart, is_list

if TYPE_CHECKING:
    from forge_jobs.handlers.handler import Handler


@dataclass(frozen=True, slots=True)
class Request:
    """Jobs of one kind with the same options."""

    pattern: NewJob
    encode: Callable[[Payload], bytes]
    unique: Unique | None
    group: Grouping | None  # where it differs from job to job
    fairness: Fairness | None  # where the tenant does
    defaults: Mapping[str, Any]  # of the handler's arguments

    def job(self, arguments: Payload) -> NewJob:
        """Return the job with these arguments. Raises InvalidPayload, InvalidInput."""
        job = replace(self.pattern, payload=self.encode(arguments))
        if self.group is not None:
            job = replace(job, groups=self.group.of(job.kind, arguments, self.defaults))
        if self.fairness is not None:
            job = replace(job, tenant=self.fairness.of(job.kind, arguments, self.defaults))
        if self.unique is not None:
            job = self.unique.applied(job, self.defaults)
        if job.tenant is not None and job.groups is not None:
            raise InvalidInput(
                f"A job of {job.kind!r} has the tenant {job.tenant!r} and a group, allowed is one of them."
            )
        return job

    def routed(self, queue: str | None) -> "Request":
        """Return the same for jobs of this queue."""
        return dataclasses.replace(self, pattern=replace(self.pattern, queue=queue))

    @property
    def _contradicts(self) -> bool:
        return self.pattern.tenant is not None and self.pattern.groups is not None

    def jobs(self, payloads: Sequence[Payload]) -> Alike | list[NewJob]:
        """Return a job for each of the payloads, which are encoded when they are needed unless each job has to be known."""
        if self.unique is None and self.group is None and self.fairness is None and not self._contradicts:
            return Alike(self.pattern, payloads, self.encode)
        return [self.job(payload) for payload in payloads]


def requested(
    kind: str, handler: "Handler[Any, Any] | None", options: Options, limit: int, *, like: Payload | None
) -> Request:
    """Return what is asked for with these options, for payloads with the codec of one that is `like` them.

    `limit` is how many bytes a payload may have. Raises InvalidInput.
    """
    merged, codec = options, "json"
    if handler is not None:
        merged, codec = _merged(handler, options, handler.defaults), handler.codec
    if isinstance(like, Encoded):
        codec = like.codec
        if handler is not None:
            handler.arguments.require_sealed(codec)
    return _request(kind, handler, merged, codec, limit, like, declared=handler is not None)


def requested_of_cron(
    kind: str,
    handler: "Handler[Any, Any] | None",
    options: Options,
    codec: str,
    like: Payload,
) -> Request:
    """Return what a cron with these options asks for again and again; what the row of its kind says is left to that.

    Its jobs have what a call says by itself: they are as one with this handler, or none, makes them. Raises InvalidInput.
    """
    if handler is not None:
        options = _merged(handler, options, handler.defaults.unpublished)
    return _request(kind, handler, options, codec, MAX_PAYLOAD, like, declared=False)


def _merged(handler: "Handler[Any, Any]", options: Options, defaults: Options) -> Options:
    """Return the options with `defaults`, some of the handler's, for what was not said. Raises InvalidInput when they do not fit it."""
    if handler.is_singleton:
        _require_no_other_key(handler.kind, options)
    if options.unique is not None:
        require_arguments(options.unique, handler.kind, handler.arguments)
    if options.group is not None:
        options.group.require_arguments(handler.kind, handler.arguments)
    return options.over(defaults)


def _request(
    kind: str,
    handler: "Handler[Any, Any] | None",
    merged: Options,
    codec: str,
    limit: int,
    like: Payload | None,
    *,
    declared: bool,
) -> Request:
    pattern = merged.job(kind, b"", codec, declared=declared)
    says_tenant = merged.tenant is not None or "tenant" in merged.none
    if pattern.key_mode is KeyMode.MERGE:
        _require_list(kind, handler, like, codec)
        pattern = replace(pattern, most_bytes=limit)
    grouping = None if merged.group is None or merged.group.function is None else merged.group
    return Request(
        pattern,
        _encoder(kind, handler, codec, limit),
        merged.unique,
        grouping,
        None if handler is None or says_tenant else handler.fairness,
        {} if handler is None else handler.arguments.defaults,
    )


def _encoder(
    kind: str, handler: "Handler[Any, Any] | None", codec: str, limit: int
) -> Callable[[Payload], bytes]:
    """Return what encodes the payloads of a request, and refuses those that do not fit the handler."""
    check: Callable[..., bytes] = partial(encode, of=kind) if handler is None else handler.arguments.check
    may_be_list = handler is None or handler.takes_items

    def encoded(payload: Payload) -> bytes:
        if type(payload) is not dict:
            if isinstance(payload, Encoded):
                return _passed(payload, codec, limit)
            if isinstance(payload, list | tuple) and may_be_list:
                return check(apart(payload) if handler is None else payload, codec, limit=limit)
            if not isinstance(payload, Mapping):
                raise InvalidInput(
                    f"The payload of {kind!r} is a {type(payload).__name__}, allowed is a mapping of argument names, or Encoded."
                )
            payload = dict(payload)
        try:
            return check(payload, codec, limit=limit)
        except UnfitPayload as error:
            for name in payload:
                if name in NAMES and handler is not None and not handler.arguments.takes(name):
                    raise UnfitPayload(
                        f"{error} The option {name!r} is said by {kind}.options({name}=...)."
                    ) from None
            raise

    return encoded


def _require_list(kind: str, handler: "Handler[Any, Any] | None", like: Payload | None, codec: str) -> None:
    """Raise InvalidInput when payloads of the kind are no lists in JSON, which could be joined."""
    if handler is not None and not handler.takes_items:
        raise InvalidInput(
            f"key_mode is 'merge' and the handler of {kind!r} takes no list, allowed is one declared by batch_handler."
        )
    if codec != "json":
        raise InvalidInput(f"key_mode is 'merge' and the payload of {kind!r} is {codec}, allowed is json.")
    is_listed = is_list(like.payload) if isinstance(like, Encoded) else isinstance(like, list | tuple)
    if handler is None and not is_listed:
        raise InvalidInput(f"key_mode is 'merge' and the payload of {kind!r} is no list, allowed is a list.")


def _require_no_other_key(kind: str, options: Options) -> None:
    for name in ("key", "unique"):
        if getattr(options, name) is not None:
            raise InvalidInput(
                f"Handler {kind!r} is a singleton and {name} is given, allowed is one of them."
            )


def _passed(payload: Encoded, codec: str, limit: int) -> bytes:
    """Return the bytes of a payload that is encoded, by this codec as all of its batch."""
    if payload.codec != codec:
        raise InvalidInput(
            f"A payload is encoded as {payload.codec}, and the others as {codec}; allowed is one codec, or enqueue_batch."
        )
    return payload.checked(limit)
