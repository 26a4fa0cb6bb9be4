"""OpenTelemetry: spans and metrics of jobs, named by its conventions for messaging. Comes with the extra `otel`.

A job carries the context in which it was enqueued (W3C trace context and baggage) in its meta. Each of its attempts is
linked to that, in whichever process it runs.
"""

import time
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import baggage, context, metrics, propagate, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider

from forge_jobs.codecs.plain import type_name
from forge_jobs.handlers.context import Context
from forge_jobs.model import meta
from forge_jobs.model.decision import Asleep, Reschedule, Throttled
from forge_jobs.model.error_text import describe, sentence
from forge_jobs.model.job import Enqueued, NewJob
from forge_jobs.model.mask import present
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.plugins.plugin import Draft, JobCall, Plugin
from forge_jobs.telemetry.events import HookFailed

if TYPE_CHECKING:
    from forge_jobs.forge import Forge
    from forge_jobs.telemetry.telemetry import Telemetry

T = TypeVar("T")

SYSTEM = "forge_jobs"
LONGEST = {"tracestate": 512, "baggage": 8_192}
"""Bytes. What is longer stays behind: W3C asks nobody to carry it."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The buckets that the conventions ask for."""

NO_FAILURES = (Asleep, Reschedule, Throttled)
"""What a handler raises though nothing has failed."""

Attributes = dict[str, str | int]


class OpenTelemetry(Plugin):
    """Makes spans and metrics of what is enqueued and run, with the providers that the program has set, or these.

    A span of an attempt begins a trace of its own, linked to the span that created the job; with `parent` it is a child of that.
    """

    def __init__(
        self,
        *,
        parent: bool = False,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._parent = parent
        self._telemetry: Telemetry | None = None  # of the forge; None: it was not open yet
        self._tracer = trace.get_tracer(SYSTEM, tracer_provider=tracer_provider)
        meter = metrics.get_meter(SYSTEM, meter_provider=meter_provider)
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", unit="{message}", description="Jobs that were enqueued."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", unit="{message}", description="Attempts that were begun."
        )
        self._sending = meter.create_histogram(
            "messaging.client.operation.duration",
            unit="s",
            description="How long it took to enqueue.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._processing = meter.create_histogram(
            "messaging.process.duration",
            unit="s",
            description="How long handlers ran.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )

    async def on_startup(self, forge: "Forge") -> None:
        """What goes wrong with the program's providers is told to the telemetry of this forge."""
        self._telemetry = forge.telemetry

    def before_enqueue(self, job: Draft) -> None:
        """The job is created: it carries the context of its own span, and the baggage of whoever asks for it."""
        facts = _facts("create", job.queue) | {"forge_jobs.job.kind": job.kind}
        carrier: dict[str, str] = {}
        with self._span(_named("create", job.queue), SpanKind.PRODUCER, facts, ()):
            self._quietly(propagate.inject, carrier)
        for name, value in carrier.items():
            if len(value.encode()) <= LONGEST.get(name, LONGEST["tracestate"]):
                job.meta[name] = value

    async def around_enqueue(
        self, jobs: Sequence[NewJob], call: Callable[[], Awaitable[list[Enqueued]]]
    ) -> None:
        """The jobs are sent: one span for all of them, linked to those that created them."""
        queue, kinds = _common_queue(jobs), {job.kind for job in jobs}
        facts, began = _facts("send", queue), time.monotonic()
        more: Attributes = {"messaging.batch.message_count": len(jobs)} if len(jobs) != 1 else {}
        if len(kinds) == 1:
            more["forge_jobs.job.kind"] = kinds.pop()
        links = [link for job in jobs for link in self._links(meta.decoded(job.meta))]
        failed: Attributes = {}
        try:
            with self._span(_named("send", queue), SpanKind.CLIENT, facts | more, links) as span:
                try:
                    made = await call()
                except BaseException as error:
                    failed = {"error.type": type_name(error)}
                    raise
                if len(made) == 1:
                    span.set_attribute("messaging.message.id", str(made[0].id))
        finally:
            self._quietly(self._sending.record, time.monotonic() - began, facts | failed)
            self._quietly(self._sent.add, len(jobs), _untyped(facts | failed))

    async def around(self, ctx: Context, call: JobCall) -> Any:
        """The attempt is a span, and runs with the baggage that its job carries."""
        facts, began = _facts("process", ctx.queue), time.monotonic()
        of_job: Attributes = {
            "messaging.message.id": str(ctx.job_id),
            "forge_jobs.job.kind": ctx.kind,
            "forge_jobs.job.attempt": ctx.attempt,
        }
        carried = self._quietly(propagate.extract, call.meta, context.Context()) or context.Context()
        failed: Attributes = {}
        token = context.attach(_within(carried, parent=self._parent))
        self._quietly(self._consumed.add, 1, _untyped(facts))
        try:
            name = _named("process", ctx.queue)
            with self._span(name, SpanKind.CONSUMER, facts | of_job, self._links(call.meta)):
                try:
                    return await call()
                except BaseException as error:
                    if not isinstance(error, NO_FAILURES):
                        failed = {"error.type": type_name(error)}
                    raise
        finally:
            context.detach(token)
            self._quietly(self._processing.record, time.monotonic() - began, _untyped(facts | failed))

    @contextmanager
    def _span(self, name: str, kind: SpanKind, facts: Attributes, links: Sequence[Link]) -> Iterator[Span]:
        """A span that says what was raised. A decision that is no failure, and being told to stop, are no errors."""
        span = (
            self._quietly(partial(self._tracer.start_span, name, kind=kind, attributes=facts, links=links))
            or trace.INVALID_SPAN
        )
        token = context.attach(trace.set_span_in_context(span))
        try:
            yield span
        except NO_FAILURES:
            raise
        except BaseException as error:
            self._quietly(_fail, span, error)
            raise
        finally:
            context.detach(token)
            self._quietly(span.end)

    def _links(self, carrier: Mapping[str, str]) -> list[Link]:
        return self._quietly(_links, carrier) or []

    def _quietly(self, record: Callable[..., T], *args: Any) -> T | None:
        """Return what `record` returns. What it raises is said, and None is returned: what is recorded of a job decides nothing of it."""
        try:
            return record(*args)
        except Exception as error:
            if self._telemetry is not None:
                self._telemetry.emit(HookFailed(f"{type(self).__name__}'s record", error))
            return None


def _fail(span: Span, error: BaseException) -> None:
    """The span says what was raised."""
    span.set_attribute("error.type", type_name(error))
    if not isinstance(error, CancelledError):
        # without what the handler redacts, as in the history of the job
        texts = (
            {}
            if present.get() is None
            else {"exception.message": sentence(error), "exception.stacktrace": describe(error)}
        )
        span.record_exception(error, texts)
        span.set_status(Status(StatusCode.ERROR, type_name(error)))


def _facts(operation: str, queue: str | None) -> Attributes:
    facts: Attributes = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
    return facts if queue is None else facts | {"messaging.destination.name": queue}


def _untyped(facts: Attributes) -> Attributes:
    """Return the attributes of a metric that is of one type of operation anyway."""
    return {name: value for name, value in facts.items() if name != "messaging.operation.type"}


def _named(operation: str, queue: str | None) -> str:
    return operation if queue is None else f"{operation} {queue}"


def _common_queue(jobs: Sequence[NewJob]) -> str | None:
    """Return the queue of all these jobs; None where they have several, or the database knows it."""
    queues = {job.queue or (DEFAULT_QUEUE if job.declared else None) for job in jobs}
    return queues.pop() if len(queues) == 1 else None


def _links(carrier: Mapping[str, str]) -> list[Link]:
    """Return a link to the span that created the job; none where it carries none."""
    created = trace.get_current_span(propagate.extract(carrier, context.Context())).get_span_context()
    return [Link(created)] if created.is_valid else []


def _within(carried: context.Context, *, parent: bool) -> context.Context:
    """Return the context of an attempt: as it is carried, or its baggage alone."""
    if parent:
        return carried
    own = context.Context()
    for name, value in baggage.get_all(carried).items():
        own = baggage.set_baggage(name, value, own)
    return own
