"""Jobs whose payloads are sealed or compressed, from enqueue to result, and what nobody is shown of them."""

import json
import os
from typing import Any

import pytest

from forge_jobs import (
    Batch,
    BatchJob,
    Context,
    Dead,
    Encoded,
    Flow,
    Forge,
    ForgeError,
    InvalidInput,
    InvalidPayload,
    State,
    Throttled,
    Unique,
    Worker,
)
from forge_jobs.client.document import document
from forge_jobs.codecs import compressed, plain, register, sealed
from forge_jobs.codecs.seal import key_id_of
from forge_jobs.telemetry import logs
from tests.storage.databases import Database
from tests.working.events import Events

OLD, NEW = os.urandom(32), os.urandom(32)
SECRET = "4111-1111-1111-1111"


@pytest.fixture(autouse=True)
def registered(own_codecs: None) -> None:
    register("sealed", sealed(keys={"new": NEW, "old": OLD}))
    register("packed", compressed())


async def run(forge: Forge) -> None:
    await Worker(forge, queues=["default"], concurrency=4).run(until_empty=True)


async def everything(database: Database) -> str:
    """Return all that the tables hold, as text."""
    rows = [await database.rows(f"SELECT * FROM {table}") for table in await database.tables()]
    return repr(rows) + repr(
        [bytes(one) for table in rows for row in table for one in row if type(one) is bytes]
    )


async def test_nobody_finds_a_sealed_argument_state_step_or_result_in_the_database(
    forge: Forge, database: Database
) -> None:
    @forge.handler(codec="sealed")
    async def pay(ctx: Context, card: str) -> str:
        await ctx.save({"card": card})
        return await ctx.step("charge", charge, card)

    async def charge(card: str) -> str:
        return f"paid with {card}"

    job = await pay.enqueue(card=SECRET)
    await run(forge)

    assert await forge.wait(job.id, timeout=30) == f"paid with {SECRET}"
    assert SECRET not in await everything(database)
    shown = document(await forge.jobs.get(job.id))
    assert shown["payload"] == {"sealed": f"{len((await forge.jobs.get(job.id)).payload)} bytes, key new"}
    assert shown["result"]["sealed"].endswith(" bytes, key new")
    assert shown["steps"][0]["result"]["sealed"].endswith(" bytes, key new")


async def test_jobs_that_wait_survive_a_change_of_keys(forge: Forge) -> None:
    seen: list[str] = []

    @forge.handler(codec="sealed")
    async def pay(card: str) -> None:
        seen.append(card)

    register("sealed", sealed(keys={"old": OLD}))
    before = await pay.enqueue(card="of old")
    register("sealed", sealed(keys={"new": NEW, "old": OLD}))
    after = await pay.enqueue(card="of new")

    assert [key_id_of((await forge.jobs.get(job.id)).payload) for job in (before, after)] == ["old", "new"]
    await run(forge)
    assert sorted(seen) == ["of new", "of old"]


async def test_a_job_whose_key_is_not_here_waits_and_one_that_is_damaged_is_dead(
    forge: Forge,
) -> None:
    @forge.handler(codec="sealed")
    async def pay(card: str) -> None: ...

    register("sealed", sealed(keys={"next": os.urandom(32)}))
    unknown = await pay.enqueue(card=SECRET)
    register("sealed", sealed(keys={"new": NEW}))
    damaged = await forge.enqueue(
        "pay", Encoded(plain.encode({"card": SECRET}, "sealed", of="pay")[:-1] + b"?", "sealed")
    )
    bomb = await forge.enqueue("pay", Encoded(b"\xc1Cz?", "packed"))
    await run(forge)

    there = [await forge.jobs.get(job.id) for job in (unknown, damaged, bomb)]
    assert [job.state for job in there] == [State.SCHEDULED, State.DEAD, State.DEAD]
    assert [job.error for job in there] == [
        "The payload cannot be read as sealed: it is sealed with the key 'next', which this program lacks; keys: new.",
        "The payload cannot be read as sealed: it is damaged, or was sealed for another kind of job, or with another key 'new'.",
        "The payload cannot be read as packed: it is damaged.",
    ]


async def test_items_that_are_left_are_sealed_again(forge: Forge, database: Database) -> None:
    seen: list[list[str]] = []

    @forge.batch_handler(codec="sealed")
    async def notify(items: list[str]) -> Any:
        seen.append(items)
        return [f"told {items[0]}", ValueError(f"cannot tell {items[1]}")] if len(items) == 2 else [None]

    job = await forge.enqueue("notify", ["ada-lovelace", SECRET])
    await run(forge)
    assert SECRET not in await everything(database)
    assert "ada-lovelace" not in await everything(database)
    await forge.jobs.run_now(job.id)
    await run(forge)

    assert seen == [["ada-lovelace", SECRET], [SECRET]]
    assert await forge.wait(job.id, timeout=30) == ["told ada-lovelace", None]


async def test_what_is_too_large_may_be_enqueued_when_it_is_compressed(forge: Forge) -> None:
    @forge.handler(codec="packed")
    async def count(text: str) -> int:
        return len(text)

    job = await count.enqueue(text="a" * 3_000_000)
    await run(forge)

    assert await forge.wait(job.id, timeout=30) == 3_000_000


def raising(ctx: Context, card: str, to: str) -> None:
    error = ValueError(f"cannot charge {card} of {to}")
    error.add_note(f"card: {card!r}")
    raise error from KeyError(card)


async def test_no_error_log_event_span_or_document_shows_a_redacted_argument(
    forge: Forge, events: Events, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    @forge.handler(redact="card", max_attempts=1)
    async def in_loop(ctx: Context, card: str, to: str) -> None:
        raising(ctx, card, to)

    @forge.handler(redact="card", max_attempts=1)
    def in_thread(ctx: Context, card: str, to: str) -> None:
        raising(ctx, card, to)

    @forge.handler(redact="card", max_attempts=1)
    async def decided(ctx: Context, card: str, to: str) -> None:
        raise Dead(f"refused: {card} of {to}")

    @forge.handler(redact="card", max_attempts=1)
    async def throttled(ctx: Context, card: str, to: str) -> None:
        raise Throttled(3600, f"not now: {card} of {to}")

    @forge.handler(redact="card", max_attempts=1)
    async def kept(ctx: Context, card: str, to: str) -> Any:
        return {"card": card, "to": to, "more": [{"card": {"number": card}}]}

    @forge.handler(kind="together", redact="card", max_attempts=1, batch=Batch(size=2, within=5))
    async def together(jobs: list[BatchJob[dict[str, Any]]]) -> None:
        raise ValueError("one of " + " and ".join(job.arguments["card"] for job in jobs))

    logs.subscribe(forge.telemetry)
    kinds = ("in_loop", "in_thread", "decided", "kept", "together", "together", "throttled")
    made = [
        await forge.enqueue(kind, {"card": f"{SECRET}-{number}", "to": "ada"}, priority=number)
        for number, kind in enumerate(kinds)
    ]
    await run(forge)

    jobs = [await forge.jobs.get(job.id) for job in made]
    texts = [json.dumps(document(job)) for job in jobs] + [repr(await forge.jobs.why(job.id)) for job in made]
    texts += [str(job.error) + str(job.failures) for job in jobs] + [repr(event) for event in events]
    texts += [str(record.__dict__) for record in caplog.records]
    assert [text for text in texts if SECRET in text] == []
    errors = [str(job.error) for job in jobs]
    assert errors[0].startswith(
        "ValueError: cannot charge (redacted) of ada\ncaused by KeyError: '(redacted)'\n"
    )
    assert errors[0].partition("\n")[0] == errors[1].partition("\n")[0]
    assert errors[2] == "refused: (redacted) of ada"
    assert document(jobs[3])["result"] == {
        "card": "(redacted)",
        "to": "ada",
        "more": [{"card": "(redacted)"}],
    }
    assert errors[4].startswith("ValueError: one of (redacted) and (redacted)")
    assert await forge.wait(made[3].id, timeout=30) == {
        "card": f"{SECRET}-3",
        "to": "ada",
        "more": [{"card": {"number": f"{SECRET}-3"}}],
    }


def refuse(card: str, to: str) -> None:
    """Run in a process of its own, whose error is put into words there."""
    raise ValueError("x" * 950 + f"cannot charge {card} of {to}")


async def test_a_process_of_its_own_does_not_show_a_redacted_argument(forge: Forge) -> None:
    forge.handler(kind="refuse", executor="process", redact="card", max_attempts=1)(refuse)

    job = await forge.enqueue("refuse", {"card": SECRET * 20, "to": "ada"})
    await run(forge)

    error = str((await forge.jobs.get(job.id)).error)
    assert "cannot charge (redacted) of ada" in error
    assert SECRET not in error


async def test_a_program_hides_what_its_handler_says_though_another_version_has_published_less(
    forge: Forge, database: Database
) -> None:
    @forge.handler(redact="card")
    async def pay(card: str, name: str) -> None: ...

    job = await pay.enqueue(card=SECRET, name="ada")
    async with Forge(storage=database.storage()) as older:

        @older.handler(kind="pay", redact="name")
        async def pay_as_before(card: str, name: str) -> None: ...

        await older.publish()

    for shown in (await forge.jobs.get(job.id), *await forge.jobs.list()):
        assert document(shown)["payload"] == {"card": "(redacted)", "name": "(redacted)"}


async def test_what_enqueues_by_name_cannot_store_open_arguments_of_a_sealed_kind(
    forge: Forge, database: Database
) -> None:
    @forge.handler(codec="sealed")
    async def pay(card: str = "") -> None: ...

    await forge.publish()
    async with Forge(storage=database.storage()) as other:
        for refused in (
            other.enqueue("pay", {"card": SECRET}),
            other.enqueue("pay", {"card": SECRET}, key="k"),
            other.enqueue("pay", {"card": SECRET}, key="k", key_mode="replace"),
            other.enqueue("pay", {"card": SECRET}, tags=["t"]),
            other.enqueue_many("pay", [{}, {"card": SECRET}]),
            other.enqueue_many("pay", [{"card": SECRET}] * 500),
            other.crons.set("nightly", "0 3 * * *", "pay", payload={"card": SECRET}),
            other.crons.ensure("nightly", "0 3 * * *", "pay", payload={"card": SECRET}),
        ):
            with pytest.raises(InvalidInput) as error:
                await refused
            assert str(error.value) == (
                "Jobs of kind 'pay' are sealed, and the payload is json; allowed is the codec 'sealed', "
                "which a program has that registers it, or no arguments."
            )
        assert await other.jobs.list() == []
        await other.enqueue("pay")
        await other.enqueue("pay", Encoded(plain.encode({"card": SECRET}, "sealed", of="pay"), "sealed"))
        await other.crons.set("nightly", "0 3 * * *", "pay")
    await run(forge)
    assert [job.state for job in await forge.jobs.list()] == [State.DONE, State.DONE]
    assert SECRET not in await everything(database)


async def test_a_sealed_job_is_run_again_with_another_payload_and_is_sealed_again(forge: Forge) -> None:
    seen: list[str] = []

    @forge.handler(codec="sealed")
    async def pay(card: str) -> None:
        seen.append(card)

    first = await pay.enqueue(card="wrong")
    await run(forge)
    again = await forge.jobs.rerun(first.id, {"card": SECRET})
    same = await forge.jobs.rerun(first.id)
    await run(forge)

    assert seen == ["wrong", SECRET, "wrong"]
    assert {(await forge.jobs.get(job.id)).codec for job in (again, same)} == {"sealed"}
    plain._codecs.pop("sealed")
    with pytest.raises(InvalidPayload, match="There is no codec 'sealed'; codecs: json, msgpack, packed"):
        await forge.jobs.rerun(first.id, {"card": SECRET})


async def test_sealed_jobs_may_be_unique_by_an_argument_and_are_not_merged(forge: Forge) -> None:
    @forge.handler(codec="sealed", unique=Unique(by=["order"]))
    async def pay(order: int, card: str) -> None: ...

    @forge.batch_handler(codec="sealed")
    async def notify(items: list[str]) -> None: ...

    first, second = await pay.enqueue(order=1, card=SECRET), await pay.enqueue(order=1, card=SECRET)

    assert (second.id, second.duplicate) == (first.id, True)
    again = [
        await pay.enqueue_many([{"order": 1, "card": SECRET}]),
        await forge.enqueue_batch([pay.job(order=1, card=SECRET)]),
    ]
    assert [second.payload_differs, *(one.payload_differs for [one] in again)] == [None] * 3
    with pytest.raises(
        InvalidInput, match="key_mode is 'merge' and the payload of 'notify' is sealed, allowed is json"
    ):
        await notify.options(key="k", key_mode="merge").enqueue(items=["a"])


async def test_bulk_operations_move_sealed_jobs_as_they_are(forge: Forge) -> None:
    @forge.handler(codec="sealed", max_attempts=1)
    async def pay(card: str) -> None:
        raise ValueError(card)

    await pay.enqueue_many([{"card": SECRET}] * 3)
    await run(forge)
    dead = await forge.jobs.list(state=State.DEAD)
    assert {job.error and job.error.partition("\n")[0] for job in dead} == {"ValueError: (redacted)"}

    assert (await forge.jobs.retry_all(kind="pay")).changed == 3
    assert len(await forge.jobs.list(state=State.PENDING)) == 3


async def test_what_the_nodes_of_a_flow_give_each_other_is_sealed(forge: Forge, database: Database) -> None:
    @forge.handler(codec="sealed")
    async def split(card: str) -> list[str]:
        return [f"{card}-{number}" for number in range(2)]

    @forge.handler(codec="sealed", max_attempts=1)
    async def charge(part: str) -> str:
        return f"paid with {part}"

    @forge.handler(codec="sealed", max_attempts=1)
    async def mail(parts: list[str]) -> None:
        raise ValueError(f"cannot mail {parts[0]}")

    started = await Flow("pay").and_then(split).map(charge).and_then(mail).start(SECRET)
    await run(forge)

    with pytest.raises(ForgeError) as dead:
        await forge.flows.wait(started, timeout=30)
    assert "cannot mail (redacted)" in str(dead.value)
    assert SECRET not in await everything(database)


async def test_a_sealed_payload_of_one_kind_or_a_result_is_no_payload_of_another_kind(
    forge: Forge, database: Database
) -> None:
    seen: list[str] = []

    @forge.handler(codec="sealed", max_attempts=1)
    async def pay(card: str) -> dict[str, str]:
        seen.append(f"pay {card}")
        return {"card": card}

    @forge.handler(codec="sealed", max_attempts=1)
    async def publish(card: str) -> None:
        seen.append(f"publish {card}")

    @forge.batch_handler(codec="sealed", max_attempts=1)
    async def notify(items: list[str]) -> list[Any]:
        seen.append(f"notify {items}")
        return [None, ValueError("not yet")][: len(items)]

    paid = await pay.enqueue(card=SECRET)
    told = await notify.enqueue(["ada", "bob"])
    await run(forge)
    job = await forge.jobs.get(paid.id)
    items = await forge.jobs.get(told.id)
    copies = [
        await forge.enqueue("publish", Encoded(job.payload, "sealed")),
        await forge.enqueue("pay", Encoded(job.result or b"", "sealed")),
        await forge.enqueue("publish", Encoded(items.payload, "sealed")),
    ]
    again = [await forge.jobs.rerun(paid.id), await forge.jobs.rerun(told.id)]
    await run(forge)

    assert seen == [f"pay {SECRET}", "notify ['ada', 'bob']", f"pay {SECRET}", "notify ['bob']"]
    refused = [await forge.jobs.get(copy.id) for copy in copies]
    assert [copy.state for copy in refused] == [State.DEAD] * 3
    assert {copy.error for copy in refused} == {
        "The payload cannot be read as sealed: it is damaged, or was sealed for another kind of job, or with another key 'new'."
    }
    assert (await forge.jobs.get(again[0].id)).state is State.DONE
