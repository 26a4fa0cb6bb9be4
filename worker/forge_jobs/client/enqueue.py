"""Enqueueing, as a program does it: by name or with a handler, alone or together, awaited or at once."""

from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from msgspec.structs import replace

from forge_jobs.client.strange_kinds import StrangeKinds
from forge_jobs.codecs.encoded import Encoded, Payload
from forge_jobs.codecs.plain import hides
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.context import answered
from forge_jobs.handlers.handler import Handlers
from forge_jobs.handlers.options import NOTHING_SAID, UNSET, Options, OptionValues
from forge_jobs.handlers.request import Request, requested
from forge_jobs.handlers.sync_connection import at_once, is_sync
from forge_jobs.model import meta
from forge_jobs.model.job import Alike, Enqueued, NewJob
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.model.redaction import Redacted
from forge_jobs.plugins.plugins import Plugins
from forge_jobs.rules import names
from forge_jobs.storage.libraries import named

if TYPE_CHECKING:
    from forge_jobs.settings.environment import Settings
    from forge_jobs.storage.interface.storage import Storage

T = TypeVar("T")


class Producer:
    """What a Forge does to enqueue jobs."""

    handlers: Handlers
    plugins: Plugins
    strange_kinds: StrangeKinds

    @property
    def settings(self) -> "Settings":
        """Overwritten by Forge."""
        raise NotImplementedError

    @property
    def storage(self) -> "Storage":
        """Overwritten by Forge."""
        raise NotImplementedError

    @property
    def _of_sync(self) -> "Producer":
        """What enqueues without an event loop, on connections of its own. Overwritten by Forge."""
        raise NotImplementedError

    def enqueue(
        self, kind: str, payload: Payload | None = None, **options: Unpack[OptionValues]
    ) -> Coroutine[Any, Any, Enqueued]:
        """A job of `kind` waits, with the options of its handler where none are given here; to be awaited.

        That is the handler of this program, else what another has published of the kind.
        Raises InvalidPayload, UnknownQueue, InvalidInput; then nothing was enqueued. In a plain
        handler the call waits by itself, and returns the answer.
        """
        work = self._enqueue(kind, payload, **options)
        return self._answered(work, "forge.enqueue", options.get("connection"))

    def enqueue_many(
        self, kind: str, payloads: Sequence[Payload], **options: Unpack[OptionValues]
    ) -> Coroutine[Any, Any, list[Enqueued]]:
        """One job for each of `payloads` waits, or none; answers are in their order; to be awaited as `enqueue`.

        Payloads are encoded while they are sent, a few MiB at a time.
        """
        work = self._enqueue_many(kind, payloads, **options)
        return self._answered(work, "forge.enqueue_many", options.get("connection"))

    def enqueue_batch(
        self, jobs: Iterable[NewJob], *, connection: Any = UNSET
    ) -> Coroutine[Any, Any, list[Enqueued]]:
        """All of `jobs`, which `job` of a handler or of the forge has made, wait, or none; to be awaited as `enqueue`.

        Answers are in their order. With `connection` they are part of that transaction.
        """
        work = self._enqueue_batch(jobs, connection)
        return self._answered(work, "forge.enqueue_batch", None if connection is UNSET else connection)

    def enqueue_sync(
        self, kind: str, payload: Payload | None = None, **options: Unpack[OptionValues]
    ) -> Enqueued:
        """As `enqueue`, without an event loop, and with nothing to await; the forge need not be open.

        With a `connection` of psycopg, sqlite3, SQLAlchemy or Django it is in the transaction of that one: call it in the
        thread to which this belongs. Without one it is as by `forge.sync`, and refused in an event loop.
        """
        connection = options.get("connection")
        work = self._without_loop(connection)._enqueue(kind, payload, **options)
        return _at_once("enqueue_sync", connection, work)

    def enqueue_many_sync(
        self, kind: str, payloads: Sequence[Payload], **options: Unpack[OptionValues]
    ) -> list[Enqueued]:
        """As `enqueue_many`, in the way of `enqueue_sync`."""
        connection = options.get("connection")
        work = self._without_loop(connection)._enqueue_many(kind, payloads, **options)
        return _at_once("enqueue_many_sync", connection, work)

    def enqueue_batch_sync(self, jobs: Iterable[NewJob], *, connection: Any = UNSET) -> list[Enqueued]:
        """As `enqueue_batch`, in the way of `enqueue_sync`."""
        given = None if connection is UNSET else connection
        work = self._without_loop(given)._enqueue_batch(jobs, connection)
        return _at_once("enqueue_batch_sync", given, work)

    def _without_loop(self, connection: Any) -> "Producer":
        return self._of_sync if connection is None else self

    def job(self, kind: str, payload: Payload | None = None, **options: Unpack[OptionValues]) -> NewJob:
        """Return a job for `enqueue_batch`, with the options that it has there. Nothing is enqueued. Raises as `enqueue`."""
        asked = Options.given(options)
        if asked.connection is not None:
            raise InvalidInput(
                "A job of a batch has no connection of its own, allowed is enqueue_batch(jobs, connection=...)."
            )
        return self._job(kind, payload, options, asked)

    async def _enqueue(
        self, kind: str, payload: Payload | None = None, **options: Unpack[OptionValues]
    ) -> Enqueued:
        asked = Options.given(options)
        job = self._job(kind, payload, options, asked)
        if self.plugins.around_enqueue:
            [made] = await self._sent([job], asked)
        else:
            made = _compared(await self.storage.jobs.enqueue(job, connection=asked.connection), job.codec)
        await self._look_at(kind, asked)
        return made

    async def _enqueue_many(
        self, kind: str, payloads: Sequence[Payload], **options: Unpack[OptionValues]
    ) -> list[Enqueued]:
        asked, listed = Options.given(options), names.listed(payloads, "payloads")
        jobs: Alike | list[NewJob]
        if self.plugins.hear_enqueues:
            jobs = [self._job(kind, payload, options, asked) for payload in listed]
        else:
            jobs = self._requested(kind, asked, next(iter(listed), None)).jobs(listed)
        made = await self._sent(jobs, asked)
        await self._look_at(kind, asked)
        return made

    async def _sent(self, jobs: Alike | Sequence[NewJob], asked: Options) -> list[Enqueued]:
        """All jobs wait, or none; plugins hear of it."""
        send = partial(self._sent_to_storage, jobs, asked.connection)
        if self.plugins.around_enqueue and not isinstance(jobs, Alike):
            return await self.plugins.sent(jobs, send)
        return await send()

    async def _sent_to_storage(self, jobs: Alike | Sequence[NewJob], connection: Any) -> list[Enqueued]:
        made = await self.storage.jobs.enqueue_many(jobs, connection=connection)
        if isinstance(jobs, Alike):
            codec = jobs.pattern.codec
            return [_compared(answer, codec) for answer in made] if hides(codec) else made
        return [_compared(answer, job.codec) for answer, job in zip(made, jobs, strict=True)]

    async def _look_at(self, kind: str, asked: Options, *, is_all: bool = True) -> None:
        """It is said if nobody has a handler for the kind, or if that says more than was `asked`, which `is_all` that is said of the
        job; not in the transaction of a caller.
        """
        if kind not in self.handlers.by_kind and asked.connection is None:
            await self.strange_kinds.look(self.storage, kind, asked if is_all else None)

    async def _enqueue_batch(self, jobs: Iterable[NewJob], connection: Any) -> list[Enqueued]:
        listed = names.listed(jobs, "jobs")
        for place, job in enumerate(listed):
            if type(job) is not NewJob:
                raise InvalidInput(
                    f"jobs[{place}] is {job!r}, allowed is what forge.job(...) or the job(...) of a handler returns."
                )
        asked = Options.given({} if connection is UNSET else {"connection": connection})
        made = await self._sent(listed, asked)
        for kind in {job.kind for job in listed}:
            await self._look_at(kind, asked, is_all=False)
        return made

    def _job(self, kind: str, payload: Payload | None, options: OptionValues, asked: Options) -> NewJob:
        if self.plugins.before_enqueue:
            return self._drafted(kind, payload, options)
        return self._requested(kind, asked, payload).job({} if payload is None else payload)

    def _drafted(self, kind: str, payload: Payload | None, options: OptionValues) -> NewJob:
        """Return the job that the plugins make of what is asked for."""
        handler = self.handlers.get(names.kind(kind))
        queue = None if handler is None else self.handlers.queue_of(kind) or DEFAULT_QUEUE
        draft = self.plugins.heard(kind, payload, options, queue)
        asked = Options.given(cast(OptionValues, draft.options))
        job = self._requested(kind, asked, draft.arguments).job(draft.arguments)
        return replace(job, meta=meta.encoded(draft.meta)) if draft.meta else job

    def encoded(self, kind: str, payload: Payload, codec: str) -> bytes:
        """Return the payload of a job of this kind, encoded. Raises InvalidPayload when it does not fit its handler."""
        handler = self.handlers.get(kind)
        like = Encoded(b"", codec)
        request = requested(kind, handler, NOTHING_SAID, self.settings.max_payload_bytes, like=like)
        return request.encode(payload)

    def redacted(self, kind: str) -> Redacted:
        """Return what of jobs of this kind the handler that this program has hides."""
        handler = self.handlers.get(kind)
        return False if handler is None else handler.hidden

    def _requested(self, kind: str, asked: Options, like: Payload | None) -> Request:
        handler = self.handlers.get(names.kind(kind))
        request = requested(kind, handler, asked, self.settings.max_payload_bytes, like=like)
        if self.handlers.routes and request.pattern.queue is None:
            return request.routed(self.handlers.queue_of(kind))
        return request

    def _answered(self, work: Coroutine[Any, Any, T], what: str, connection: Any) -> Coroutine[Any, Any, T]:
        return answered(cast(Any, self), work, what, connection)


def _compared(answer: Enqueued, codec: str) -> Enqueued:
    """Return the answer; of a payload with a codec that hides, which writes the same anew each time, it is not known whether it differs."""
    return replace(answer, payload_differs=None) if answer.payload_differs and hides(codec) else answer


def _at_once(what: str, connection: Any, work: Coroutine[Any, Any, T]) -> T:
    if connection is not None:
        try:
            require_sync(connection, what)
        except InvalidInput:
            work.close()
            raise
    return at_once(work)


def require_sync(connection: Any, what: str) -> None:
    """Raise InvalidInput, which names the call, for a caller's connection whose calls have to be awaited."""
    if not is_sync(connection):
        raise InvalidInput(
            f"connection is a {named(connection)}, allowed in {what} is one whose calls are not awaited: "
            "of psycopg 3, sqlite3, SQLAlchemy or Django."
        )
