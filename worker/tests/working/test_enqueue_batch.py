"""Batches that mix kinds, and payloads that are bytes already."""

import contextlib
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from forge_jobs import Context, Encoded, Forge, InvalidInput, InvalidPayload, State, UnknownQueue, Worker
from tests.storage.databases import Database


class RolledBack(Exception):
    """Raised by a test to roll its transaction back."""


async def run(forge: Forge) -> None:
    await Worker(forge, queues=["default"], concurrency=4).run(until_empty=True)


async def test_a_batch_mixes_kinds_and_options_and_is_answered_in_order(forge: Forge) -> None:
    @forge.handler(priority=7)
    async def welcome(user: int) -> int:
        return user

    @forge.handler(codec="msgpack")
    async def bill(order: int) -> int:
        return order

    made = await forge.enqueue_batch(
        [
            welcome.job(user=1),
            bill.options(key="order:2", delay=timedelta(hours=1)).job(order=2),
            forge.job("by_name", {"number": 3}, max_attempts=1),
            bill.options(key="order:2").job(order=4),
        ]
    )

    jobs = [await forge.jobs.get(answer.id) for answer in made]
    assert [job.kind for job in jobs] == ["welcome", "bill", "by_name", "bill"]
    assert [job.codec for job in jobs] == ["json", "msgpack", "json", "msgpack"]
    assert [job.state for job in jobs[:3]] == [State.PENDING, State.SCHEDULED, State.PENDING]
    assert (jobs[0].priority, jobs[2].max_attempts) == (7, 1)
    assert (made[3].id, made[3].duplicate) == (made[1].id, True)


@pytest.mark.parametrize("count", [2, 500])
async def test_a_batch_waits_as_a_whole_or_not_at_all(forge: Forge, count: int) -> None:
    jobs = [forge.job(f"kind-{number % 3}", {"number": number}) for number in range(count)]
    with pytest.raises(UnknownQueue):
        await forge.enqueue_batch([*jobs, forge.job("last", queue="nowhere")])
    assert await forge.jobs.list() == []

    made = await forge.enqueue_batch(job for job in jobs)

    kinds = {job.id: job.kind for job in await forge.jobs.list(limit=1000)}
    assert [kinds[answer.id] for answer in made] == [job.kind for job in jobs]


@pytest.mark.parametrize("commits", [True, False])
async def test_a_batch_is_part_of_the_callers_transaction(
    forge: Forge, database: Database, commits: bool
) -> None:
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            await forge.enqueue_batch([forge.job("one"), forge.job("two")], connection=connection)
            assert await forge.jobs.list() == []
            if not commits:
                raise RolledBack

    assert {job.kind for job in await forge.jobs.list()} == ({"one", "two"} if commits else set())


async def test_an_empty_batch_enqueues_nothing(forge: Forge) -> None:
    assert await forge.enqueue_batch([]) == []


async def test_a_plain_handler_enqueues_a_batch_and_gets_the_answer_itself(forge: Forge) -> None:
    @forge.handler(max_attempts=1)
    def work(ctx: Context) -> int:
        made: Any = forge.enqueue_batch([forge.job("one"), forge.job("two")])
        return len(made)

    job = await work.enqueue()
    await run(forge)

    assert await forge.wait(job, timeout=30) == 2


@pytest.mark.parametrize("wrong", ["welcome", {"kind": "welcome"}, 7, None])
async def test_what_is_no_job_is_refused_with_its_place(forge: Forge, wrong: object) -> None:
    with pytest.raises(InvalidInput, match=r"^jobs\[1\] is .*, allowed is what forge\.job"):
        await forge.enqueue_batch([forge.job("one"), wrong])  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match=r"^jobs is "):
        await forge.enqueue_batch("welcome")  # type: ignore[arg-type]

    assert await forge.jobs.list() == []


async def test_a_job_of_a_batch_has_no_connection_of_its_own(forge: Forge, database: Database) -> None:
    async with database.transaction() as connection:
        with pytest.raises(InvalidInput, match="A job of a batch has no connection of its own"):
            forge.job("one", connection=connection)
    with pytest.raises(InvalidInput, match="connection is None"):
        await forge.enqueue_batch([], connection=None)


async def test_a_job_is_refused_where_it_is_made(forge: Forge) -> None:
    @forge.handler
    async def welcome(user: int) -> None: ...

    with pytest.raises(InvalidPayload):
        welcome.job(user="nobody")
    with pytest.raises(InvalidInput, match="priority"):
        welcome.options(priority=10**6).job(user=1)


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_bytes_that_are_encoded_already_reach_the_handler_as_they_are(forge: Forge, codec: str) -> None:
    @forge.handler
    async def add(left: int, right: int) -> int:
        return left + right

    encoder = msgspec.json if codec == "json" else msgspec.msgpack
    payload = Encoded(encoder.encode({"left": 2, "right": 3}), codec)
    made = [
        await forge.enqueue("add", payload),
        *await forge.enqueue_many("add", [payload, payload]),
        *await forge.enqueue_batch([forge.job("add", payload), add.job(left=1, right=4)]),
    ]
    await run(forge)

    assert [await forge.wait(job, timeout=30) for job in made] == [5] * 5
    stored = await forge.jobs.get(made[0].id)
    assert (stored.payload, stored.codec) == (payload.payload, codec)


async def test_encoded_bytes_are_not_looked_into_before_a_worker_does(forge: Forge) -> None:
    @forge.handler
    async def add(left: int) -> None: ...

    job = await forge.enqueue("add", Encoded(b"no json"))
    await run(forge)

    assert (await forge.jobs.get(job.id)).state is State.DEAD


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (Encoded("text"), "is of type str, allowed is bytes"),  # type: ignore[arg-type]
        (Encoded(b"{}", 7), "codec"),  # type: ignore[arg-type]
        (Encoded(b"{}", ""), "codec"),
        (Encoded(b"x" * (1024 * 1024 + 1)), "1,048,577 bytes as json, allowed are 1,048,576"),
        (b"{}", "allowed is a mapping of argument names, or Encoded"),
    ],
    ids=["text", "codec", "no-codec", "large", "bytes"],
)
async def test_what_is_not_encoded_bytes_is_refused(forge: Forge, wrong: Any, why: str) -> None:
    for call in (forge.enqueue("work", wrong), forge.enqueue_many("work", [wrong])):
        with pytest.raises(InvalidInput, match=why):
            await call
    with pytest.raises(InvalidInput, match=why):
        await forge.enqueue_batch([forge.job("work", wrong)])

    assert await forge.jobs.list() == []


async def test_payloads_of_enqueue_many_have_one_codec(forge: Forge) -> None:
    with pytest.raises(InvalidInput, match="allowed is one codec, or enqueue_batch"):
        await forge.enqueue_many("work", [Encoded(b"{}", "msgpack"), Encoded(b"{}", "json")])
    with pytest.raises(InvalidInput, match="allowed is one codec, or enqueue_batch"):
        await forge.enqueue_many("work", [{}, Encoded(b"{}", "msgpack")])

    assert await forge.jobs.list() == []
