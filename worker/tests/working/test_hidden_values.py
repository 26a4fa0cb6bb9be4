"""What handlers of sealed and redacted kinds read besides their arguments, and what no error, log or event shows of it."""

import os
from enum import Enum
from typing import Any

import pytest

from forge_jobs import (
    Batch,
    BatchJob,
    Context,
    Encoded,
    Flow,
    FlowDead,
    Forge,
    InvalidInput,
    Retry,
    Signalled,
    State,
    Worker,
)
from forge_jobs.client.document import document
from forge_jobs.codecs import plain, register, sealed
from forge_jobs.model.signal import NewSignal, Recipient
from forge_jobs.telemetry import logs
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.test_sealed import everything

SECRET = "4111-1111-1111-1111"
NUMBER = 41_111_111

HIDING: list[dict[str, Any]] = [{"redact": True}, {"codec": "sealed"}]


class Pin(Enum):
    RIGHT = "right"


@pytest.fixture(autouse=True)
def registered(own_codecs: None) -> None:
    register("sealed", sealed(keys={"new": os.urandom(32)}))


async def run(forge: Forge) -> None:
    await Worker(forge, queues=["default"], concurrency=4).run(until_empty=True)


async def texts(forge: Forge, job_id: int) -> str:
    """Return all that people are shown of a job."""
    job = await forge.jobs.get(job_id)
    shown = (document(job), job.error, job.failures, await forge.jobs.why(job_id))
    return repr(shown) + repr(await forge.jobs.history(job_id))


@pytest.mark.parametrize("hiding", HIDING, ids=["redacted", "sealed"])
async def test_no_error_shows_what_a_handler_reads_besides_its_arguments(
    forge: Forge, events: Events, caplog: pytest.LogCaptureFixture, hiding: dict[str, Any]
) -> None:
    async def secret() -> str:
        return f"card {SECRET}"

    @forge.handler(max_attempts=2, **hiding)
    async def of_step(ctx: Context, again: bool = True) -> None:
        number = await ctx.step("read", secret)
        raise Retry(0, f"again with {number}") if ctx.attempt == 1 else ValueError(number)

    @forge.handler(max_attempts=2, **hiding)
    async def of_state(ctx: Context, again: bool = True) -> None:
        if ctx.attempt == 1:
            await ctx.save([SECRET])
            raise Retry(0, "again")
        raise ValueError(f"was at {ctx.state}")

    @forge.handler(max_attempts=1, **hiding)
    async def of_signal(ctx: Context, again: bool = True) -> None:
        raise ValueError(f"the pin {await ctx.wait_for('pin')} is wrong")

    @forge.handler(max_attempts=1, **hiding)
    async def of_signal_of_a_type(ctx: Context, again: bool = True) -> None:
        await ctx.wait_for("pin", returns=Pin)

    @forge.handler(kind="of_batch", max_attempts=2, batch=Batch(size=1), **hiding)
    async def of_batch(jobs: list[BatchJob[dict[str, Any]]]) -> None:
        [job] = jobs
        if job.ctx.attempt == 1:
            await job.ctx.save([SECRET])
            raise Retry(0, "again")
        raise ValueError(f"was at {job.ctx.state}")

    logs.subscribe(forge.telemetry)
    kinds = ("of_step", "of_state", "of_signal", "of_signal_of_a_type", "of_batch")
    jobs = {kind: await forge.enqueue(kind, {} if kind == "of_batch" else {"again": False}) for kind in kinds}
    for kind in ("of_signal", "of_signal_of_a_type"):
        await forge.signal("pin", SECRET, job=jobs[kind])
    await run(forge)

    for kind, job in jobs.items():
        assert (await forge.jobs.get(job.id)).state is State.DEAD
        assert SECRET not in await texts(forge, job.id), kind
    said = [repr(event) for event in events] + [str(record.__dict__) for record in caplog.records]
    assert [text for text in said if SECRET in text] == []


@pytest.mark.parametrize("hiding", HIDING, ids=["redacted", "sealed"])
async def test_no_error_shows_keys_of_hidden_mappings_items_or_results(
    forge: Forge, events: Events, caplog: pytest.LogCaptureFixture, hiding: dict[str, Any]
) -> None:
    @forge.handler(max_attempts=1, **hiding)
    async def of_keys(cards: dict[str, int]) -> None:
        raise KeyError(next(iter(cards)))

    @forge.batch_handler(max_attempts=1, **hiding)
    async def of_items(items: list[Pin]) -> None: ...

    @forge.handler(max_attempts=1, **hiding)
    async def of_result(card: str) -> Any:
        return {card: float("nan")}

    logs.subscribe(forge.telemetry)
    codec = hiding.get("codec", "json")
    payloads: dict[str, Any] = {
        "of_keys": {"cards": {SECRET: 1}},
        "of_items": [SECRET],
        "of_result": {"card": SECRET},
    }
    jobs = [
        await forge.enqueue(kind, Encoded(plain.encode(payload, codec, of=kind), codec))
        for kind, payload in payloads.items()
    ]
    await run(forge)

    assert [SECRET in await texts(forge, job.id) for job in jobs] == [False] * 3
    said = [repr(event) for event in events] + [str(record.__dict__) for record in caplog.records]
    assert [text for text in said if SECRET in text] == []
    assert str((await forge.jobs.get(jobs[1].id)).error).endswith(
        "item 0: it does not fit, and is not shown."
    )


async def test_an_event_does_not_show_the_arguments_or_the_state_of_its_job(
    forge: Forge, events: Events
) -> None:
    @forge.handler(max_attempts=1)
    async def pay(ctx: Context, card: int) -> None: ...

    await forge.enqueue("pay", Encoded(plain.encode({"card": SECRET})))
    await run(forge)

    assert [repr(event) for event in events if SECRET in repr(event)] == []


async def test_a_job_that_waited_when_its_kind_was_sealed_shows_no_arguments(forge: Forge) -> None:
    waited = [await forge.enqueue(kind, {"card": SECRET}, max_attempts=1) for kind in ("pay", "check")]

    @forge.handler(codec="sealed", max_attempts=1)
    async def pay(card: str) -> None:
        raise ValueError(card)

    @forge.handler(codec="sealed", max_attempts=1)
    async def check(card: Pin) -> None: ...

    await forge.publish()
    await run(forge)

    for job in waited:
        assert (await forge.jobs.get(job.id)).state is State.DEAD
        assert SECRET not in await texts(forge, job.id)


async def test_what_a_job_of_a_sealed_kind_that_was_enqueued_by_name_saves_and_returns_is_sealed(
    forge: Forge, database: Database
) -> None:
    async def secret() -> str:
        return SECRET

    @forge.handler(codec="sealed")
    async def pay(ctx: Context, card: str = "") -> str:
        await ctx.save({"card": SECRET})
        return await ctx.step("read", secret)

    await forge.publish()
    async with Forge(storage=database.storage()) as other:
        await other.crons.set("nightly", "0 3 * * *", "pay")
        made = [
            await other.enqueue("pay"),
            await other.enqueue("pay", key="of one"),
            await other.enqueue("pay", key="put", key_mode="replace"),
            *await other.enqueue_many("pay", [{}, {}]),
            *await other.enqueue_many("pay", [{}] * 500),
            await other.crons.trigger("nightly"),
        ]
    await run(forge)

    assert {(await forge.jobs.get(job.id)).codec for job in made[:10] + made[-1:]} == {"sealed"}
    assert await forge.wait(made[0].id, timeout=30) == SECRET
    assert document(await forge.jobs.get(made[0].id))["payload"] == {}
    assert SECRET not in await everything(database)


async def test_values_of_signals_to_sealed_jobs_are_sealed(forge: Forge, database: Database) -> None:
    seen: list[str] = []

    @forge.handler(codec="sealed")
    async def pay(ctx: Context, order: int) -> None:
        seen.append(await ctx.wait_for("pin"))

    @forge.handler
    async def mail(ctx: Context, order: int) -> None:
        seen.append(await ctx.wait_for("pin"))

    one = await pay.enqueue(order=1)  # nothing has been published yet
    await forge.signal("pin", f"{SECRET} of one", job=one)
    await forge.publish()
    keyed = await pay.options(key="k").enqueue(order=2)
    await forge.signal("pin", f"{SECRET} of the key", kind="pay", key="k")
    tagged = [await handler.options(tags=["t"]).enqueue(order=3) for handler in (pay, mail)]
    assert list(await forge.signal("pin", "of the tag", tag="t")) == [job.id for job in tagged]

    shown = document(await forge.jobs.get(keyed.id))["signals"][0]["value"]
    assert shown["sealed"].endswith(" bytes, key new")
    await run(forge)
    assert sorted(seen) == [f"{SECRET} of one", f"{SECRET} of the key", "of the tag", "of the tag"]
    assert SECRET not in await everything(database)


async def test_a_program_without_the_codec_sends_sealed_jobs_no_values(
    forge: Forge, database: Database
) -> None:
    @forge.handler(codec="sealed")
    async def pay(ctx: Context, order: int) -> None: ...

    job = await pay.enqueue(order=1)
    await forge.publish()
    plain._codecs.pop("sealed")

    with pytest.raises(InvalidInput, match="There is no codec 'sealed'; codecs: json, msgpack"):
        await forge.signal("pin", SECRET, job=job)
    with pytest.raises(InvalidInput) as error:
        await forge.storage.signals.send(Recipient(job.id), NewSignal("pin", b'"open"'))
    assert "are sealed, and the value of signal " in str(error.value)
    assert "is json; allowed is the codec " in str(error.value)
    assert await forge.signal("approved", job=job) is Signalled.KEPT
    assert SECRET not in await everything(database)


async def test_what_a_sealed_job_cannot_write_is_not_described_in_plain(
    forge: Forge, database: Database
) -> None:
    @forge.handler(codec="sealed", max_attempts=1)
    async def returns(ctx: Context) -> Any:
        return {SECRET: object()}

    @forge.handler(codec="sealed", max_attempts=1)
    async def keeps(ctx: Context) -> None:
        await ctx.step("read", unwritable)

    @forge.handler(codec="sealed", max_attempts=1)
    async def saves(ctx: Context) -> None:
        await ctx.save({"cards": {NUMBER: 1, str(NUMBER): 2}})

    @forge.handler(codec="sealed", max_attempts=1)
    async def enqueues(ctx: Context, cards: Any = None) -> None:
        await enqueues.enqueue(cards={SECRET: object()})

    async def unwritable() -> Any:
        return {SECRET: object()}

    handlers: list[Any] = [returns, keeps, saves, enqueues]
    jobs = [await handler.enqueue() for handler in handlers]
    await run(forge)

    errors = [(await forge.jobs.get(job)).error or "" for job in jobs]
    assert "The result cannot be written as json: object, at a place that is not shown." in errors[0]
    for error, what in zip(errors[1:], ("object", "dict", "object"), strict=True):
        assert f"cannot be written as json: {what}, at a place that is not shown." in error
    rows = await everything(database)
    assert SECRET not in rows and str(NUMBER) not in rows


async def test_a_flow_of_sealed_nodes_shows_neither_what_it_folds_nor_what_a_branch_returned(
    forge: Forge, database: Database
) -> None:
    @forge.handler(codec="sealed")
    async def numbers() -> list[int]:
        return [1, 2]

    @forge.handler(codec="sealed")
    async def add(so_far: str, number: int) -> str:
        return f"{so_far} {number}"

    @forge.handler(codec="sealed")
    async def choose(numbers: list[int]) -> str:
        return SECRET

    folded = await Flow("folds").and_then(numbers).fold(add, SECRET).start()
    led = await Flow("leads").and_then(numbers).branch(choose, {"here": numbers, "there": numbers}).start()
    await run(forge)

    assert await forge.flows.wait(folded, timeout=30) == {"add[1]": f"{SECRET} 1 2"}
    with pytest.raises(FlowDead, match="choose leads to what is not shown, allowed is one of"):
        await forge.flows.wait(led, timeout=30)
    assert SECRET not in await everything(database)
