"""Spans and metrics of jobs, held to the conventions of OpenTelemetry for messaging."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from forge_jobs import Context, Forge, Reschedule, Worker
from forge_jobs.plugins.opentelemetry import OpenTelemetry
from tests.storage.databases import Database

COMMON = {
    "messaging.system": "forge_jobs",
    "messaging.destination.name": "mail",
}

SPANS: dict[str, tuple[SpanKind, dict[str, object]]] = {
    "create mail": (
        SpanKind.PRODUCER,
        {
            "messaging.operation.name": "create",
            "messaging.operation.type": "create",
            "forge_jobs.job.kind": "work",
        },
    ),
    "send mail": (
        SpanKind.CLIENT,
        {
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.message.id": "ID",
            "forge_jobs.job.kind": "work",
        },
    ),
    "process mail": (
        SpanKind.CONSUMER,
        {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.id": "ID",
            "forge_jobs.job.kind": "work",
            "forge_jobs.job.attempt": 1,
        },
    ),
}
"""By the name of a span: its kind, and its attributes besides the common ones."""

METRICS: dict[str, tuple[str, dict[str, object]]] = {
    "messaging.client.sent.messages": ("{message}", {"messaging.operation.name": "send"}),
    "messaging.client.operation.duration": (
        "s",
        {"messaging.operation.name": "send", "messaging.operation.type": "send"},
    ),
    "messaging.client.consumed.messages": ("{message}", {"messaging.operation.name": "process"}),
    "messaging.process.duration": ("s", {"messaging.operation.name": "process"}),
}
"""By the name of a metric: its unit, and its attributes besides the common ones."""


class Recorded:
    """What was recorded, and the providers to record with."""

    def __init__(self) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    def plugin(self, **options: Any) -> OpenTelemetry:
        return OpenTelemetry(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if name in (None, span.name)]

    def points(self) -> dict[str, tuple[str, list[NumberDataPoint | HistogramDataPoint]]]:
        """Return the unit and the points of each metric."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: (metric.unit or "", list(metric.data.data_points))  # type: ignore[arg-type]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """What the plugin records during the test."""
    recorded = Recorded()
    yield recorded
    recorded.tracers.shutdown()
    recorded.meters.shutdown()


@pytest.fixture
def forge(database: Database, recorded: Recorded) -> Forge:
    """A Forge on the test's own database, with the plugin, which is not open yet."""
    forge = Forge(storage=database.storage())
    forge.use(recorded.plugin())
    return forge


async def run(forge: Forge) -> None:
    async with asyncio.timeout(60):
        await Worker(forge, queues=["mail"], concurrency=1).run(until_empty=True)


async def one(forge: Forge, function: Callable[..., Any], **options: Any) -> int:
    """Run one job of a handler that is declared so until it has ended; return its id."""
    handler = forge.handler(kind="work", queue="mail", **options)(function)
    async with forge:
        await forge.queues.set("mail", backoff_enabled=False)
        job = await handler.enqueue()
        await run(forge)
    return job.id


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


async def work() -> None: ...


async def test_spans_are_named_and_linked_by_the_conventions(forge: Forge, recorded: Recorded) -> None:
    job_id = await one(forge, work)

    spans = recorded.spans()
    assert [span.name for span in spans] == list(SPANS)
    for span in spans:
        kind, facts = SPANS[span.name]
        known = {name: str(job_id) if value == "ID" else value for name, value in facts.items()}
        assert (span.kind, dict(span.attributes or {})) == (kind, COMMON | known), span.name
        assert span.status.status_code is StatusCode.UNSET
    created, sent, processed = spans
    assert (linked(created), linked(sent), linked(processed)) == ([], [id_of(created)], [id_of(created)])
    assert processed.parent is None, "an attempt is a trace of its own"


async def test_metrics_are_named_by_the_conventions(forge: Forge, recorded: Recorded) -> None:
    await one(forge, work)

    points = recorded.points()
    assert points.keys() == METRICS.keys()
    for name, (unit, facts) in METRICS.items():
        assert points[name][0] == unit, name
        [point] = points[name][1]
        assert dict(point.attributes or {}) == COMMON | facts, name
        assert (point.count if isinstance(point, HistogramDataPoint) else point.value) == 1, name


async def test_a_failed_attempt_is_an_error_and_each_attempt_is_linked_to_where_the_job_came_from(
    forge: Forge, recorded: Recorded
) -> None:
    async def fails_once(ctx: Context) -> None:
        if ctx.attempt == 1:
            raise ValueError("boom")

    await one(forge, fails_once)

    [created], [first, second] = recorded.spans("create mail"), recorded.spans("process mail")
    assert linked(first) == linked(second) == [id_of(created)]
    assert first.status.status_code is StatusCode.ERROR and second.status.status_code is StatusCode.UNSET
    assert dict(first.attributes or {})["error.type"] == "ValueError"
    assert [event.name for event in first.events] == ["exception"]
    durations = recorded.points()["messaging.process.duration"][1]
    assert {dict(point.attributes or {}).get("error.type") for point in durations} == {None, "ValueError"}


async def test_a_decision_that_is_no_failure_is_no_error(forge: Forge, recorded: Recorded) -> None:
    seen: list[int] = []

    async def comes_again(ctx: Context) -> None:
        seen.append(ctx.attempt)
        if len(seen) == 1:
            raise Reschedule

    await one(forge, comes_again)

    processed = recorded.spans("process mail")
    assert [span.status.status_code for span in processed] == [StatusCode.UNSET] * 2
    assert not any("error.type" in (span.attributes or {}) for span in processed)


async def test_an_attempt_that_sleeps_is_no_error(forge: Forge, recorded: Recorded) -> None:
    async def sleeps(ctx: Context) -> None:
        await ctx.sleep(3600)

    await one(forge, sleeps)

    [span] = recorded.spans("process mail")
    assert span.status.status_code is StatusCode.UNSET and "error.type" not in (span.attributes or {})
    durations = recorded.points()["messaging.process.duration"][1]
    assert {dict(point.attributes or {}).get("error.type") for point in durations} == {None}


async def test_jobs_that_are_sent_together_are_one_span_linked_to_all_of_them(
    forge: Forge, recorded: Recorded
) -> None:
    handler = forge.handler(kind="work", queue="mail")(work)
    async with forge:
        await handler.enqueue_many([{}] * 3)

    created, [sent] = recorded.spans("create mail"), recorded.spans("send mail")
    assert linked(sent) == [id_of(span) for span in created] and len(created) == 3
    assert (sent.attributes or {})["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in (sent.attributes or {})
    [point] = recorded.points()["messaging.client.sent.messages"][1]
    assert isinstance(point, NumberDataPoint) and point.value == 3


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "thread"])
async def test_baggage_and_the_state_of_the_trace_go_with_the_job_and_with_what_it_enqueues(
    forge: Forge, recorded: Recorded, is_plain: bool
) -> None:
    seen: list[object] = []

    async def next_one() -> None:
        seen.append(baggage.get_baggage("shop"))

    follower = forge.handler(kind="next", queue="mail")(next_one)

    async def first_one() -> None:
        seen.append(baggage.get_baggage("shop"))
        await follower.enqueue()

    def first_in_a_thread() -> None:
        seen.append(baggage.get_baggage("shop"))
        follower.enqueue()  # type: ignore[unused-coroutine]

    token = context.attach(baggage.set_baggage("shop", "7"))
    try:
        await one(forge, first_in_a_thread if is_plain else first_one)
    finally:
        context.detach(token)

    assert seen == ["7", "7"]
    first, second = recorded.spans("create mail")
    processed, followed = recorded.spans("process mail")
    assert second.parent is not None and second.parent.span_id == id_of(processed)
    assert linked(followed) == [id_of(second)] and linked(processed) == [id_of(first)]


async def test_the_state_of_a_trace_goes_with_the_job(forge: Forge, recorded: Recorded) -> None:
    state = trace.TraceState([("shop", "7")])
    remote = trace.SpanContext(0xA, 0xB, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=state)
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(remote)))
    try:
        await one(forge, work)
    finally:
        context.detach(token)

    [created], [processed] = recorded.spans("create mail"), recorded.spans("process mail")
    assert created.context is not None and created.context.trace_id == 0xA
    [link] = processed.links
    assert (link.context.trace_id, link.context.trace_state.get("shop")) == (0xA, "7")


async def test_one_job_sees_nothing_of_what_another_one_carried(forge: Forge, recorded: Recorded) -> None:
    seen: list[tuple[object, int]] = []

    async def look() -> None:
        seen.append((baggage.get_baggage("shop"), len(seen)))

    handler = forge.handler(kind="work", queue="mail")(look)
    async with forge:
        token = context.attach(baggage.set_baggage("shop", "7"))
        await handler.enqueue()
        context.detach(token)
        await handler.enqueue()
        await run(forge)

    assert [carried for carried, _ in seen] == ["7", None]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_baggage_that_is_too_long_stays_behind_and_the_job_goes_on(
    forge: Forge, recorded: Recorded
) -> None:
    seen: list[object] = []

    async def look() -> None:
        seen.append(baggage.get_baggage("shop"))

    token = context.attach(baggage.set_baggage("shop", "7" * 9_000))
    try:
        await one(forge, look)
    finally:
        context.detach(token)

    assert seen == [None]
    assert len(recorded.spans("process mail")[0].links) == 1


async def test_an_attempt_may_be_a_child_of_where_its_job_came_from(
    database: Database, recorded: Recorded
) -> None:
    forge = Forge(storage=database.storage())
    forge.use(recorded.plugin(parent=True))
    await one(forge, work)

    [created], [processed] = recorded.spans("create mail"), recorded.spans("process mail")
    assert processed.parent is not None and processed.parent.span_id == id_of(created)
    assert linked(processed) == [id_of(created)]


async def test_a_job_that_was_enqueued_without_the_plugin_is_linked_to_nothing(
    forge: Forge, recorded: Recorded, database: Database
) -> None:
    forge.handler(kind="work", queue="mail")(work)
    async with Forge(storage=database.storage()) as plain:
        await plain.ensure_queues("mail")
        await plain.enqueue("work", {}, queue="mail")
    async with forge:
        await run(forge)

    [processed] = recorded.spans()
    assert (processed.name, linked(processed)) == ("process mail", [])


async def test_a_job_that_cannot_be_sent_is_an_error_of_its_span(forge: Forge, recorded: Recorded) -> None:
    async with forge:
        with pytest.raises(Exception, match="nowhere"):
            await forge.enqueue("work", {}, queue="nowhere")

    [sent] = recorded.spans("send nowhere")
    assert (sent.attributes or {})["error.type"] == "forge_jobs.errors.UnknownQueue"
    assert sent.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("moment", ["on_start", "on_end"])
async def test_a_job_is_sent_and_done_once_though_nothing_can_be_recorded(
    database: Database, moment: str
) -> None:
    def fails(*given: object, **more: object) -> None:
        raise RuntimeError("it broke")

    processor, ran, said = SpanProcessor(), list[str](), list[str]()
    setattr(processor, moment, fails)
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(processor)
    forge = Forge(storage=database.storage())
    forge.use(OpenTelemetry(tracer_provider=tracers))
    forge.telemetry.subscribe(lambda event: said.append(str(event)))

    await one(forge, lambda: ran.append("work"), max_attempts=2)

    assert ran == ["work"]
    assert any("HookFailed" in event and "OpenTelemetry" in event for event in said)


async def test_a_span_does_not_show_a_redacted_argument(forge: Forge, recorded: Recorded) -> None:
    @forge.handler(kind="pay", queue="mail", redact="card", max_attempts=1)
    async def pay(card: str) -> None:
        raise ValueError(f"cannot charge {card}")

    async with forge:
        await pay.enqueue(card="4111-1111")
        await run(forge)

    [event] = recorded.spans("process mail")[0].events
    assert event.attributes is not None
    assert event.attributes["exception.message"] == "cannot charge (redacted)"
    assert "4111" not in str(event.attributes)
