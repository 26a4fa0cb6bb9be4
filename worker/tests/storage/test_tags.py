"""Jobs have tags, by which people find, count and move them."""

import itertools
from datetime import timedelta

import pytest

from forge_jobs.errors import JobNotFound
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import Hold, KeyMode, State
from forge_jobs.model.match import Move
from tests.storage.factories import (
    claim,
    claim_ids,
    dead,
    done,
    ended,
    enqueue,
    job,
    leader,
    move_all,
    one_in_each_state,
    running,
    worker,
)

HOUR = timedelta(hours=1)
QUEUES = itertools.count(1)


async def find(storage, *tags, **filters):
    return [found.id for found in await storage.jobs.find(with_tags=tags, **filters)]


async def in_each_state(storage, me, **facts):
    """Return {state: id} of one job in each state, in a queue of their own."""
    facts["queue"] = f"queue-{next(QUEUES)}"
    await storage.queues.ensure([facts["queue"]])
    return await one_in_each_state(storage, me, **facts)


async def moved(storage, move, state, *tags, limit=1000, **facts):
    """Return how many jobs of the state with these tags were moved, and how many batches that took."""
    batches = [
        batch.changed async for batch in move_all(storage, move, state, limit=limit, tags=tags, **facts)
    ]
    return sum(batches), len(batches)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"delay": HOUR},
        {"key": "a"},
        {"key": "a", "key_mode": KeyMode.REPLACE},
        {"hold": Hold(b"0" * 16, HOUR)},
        {"groups": encoded([Group("g")])},
    ],
)
async def test_a_job_says_its_tags_however_it_was_enqueued(storage, facts):
    tagged = await enqueue(storage, tags=("customer:7", "paid"), **facts)
    await enqueue(storage)

    assert (await storage.jobs.get(tagged)).tags == ("customer:7", "paid")
    assert await find(storage, "paid") == [tagged]
    [listed] = await storage.jobs.find(with_tags=("customer:7",))
    assert listed.tags == ("customer:7", "paid")


async def test_jobs_of_a_small_and_of_a_large_batch_have_their_tags(storage):
    for count in (5, 300):
        tags = (f"batch of {count}",)
        made = await storage.jobs.enqueue_many(
            [job(tags=tags if number % 2 else ()) for number in range(count)]
        )

        ids = [answer.id for number, answer in enumerate(made) if number % 2]
        assert await find(storage, *tags, limit=1000) == sorted(ids, reverse=True)


async def test_a_job_in_the_transaction_of_a_caller_has_its_tags(storage, database):
    async with database.transaction() as connection:
        one = await storage.jobs.enqueue(job(tags=("a",)), connection=connection)

    assert await find(storage, "a") == [one.id]


@pytest.mark.parametrize("state", list(State))
async def test_jobs_are_found_by_tag_and_state(storage, state):
    me = await worker(storage)
    jobs = await in_each_state(storage, me, tags=("a", "b"))
    await in_each_state(storage, me, tags=("b",))

    assert await find(storage, "a", state=state) == [jobs[state]]
    assert await find(storage, "b", "a", state=state) == [jobs[state]]
    assert await storage.jobs.count(state, with_tags=("a",)) == 1
    assert await storage.jobs.count(state, with_tags=("b",)) == 2


async def test_jobs_are_found_by_tag_queue_and_kind_page_by_page(storage):
    await storage.queues.ensure(["mail"])
    mine = [await enqueue(storage, "send", queue="mail", tags=("a",)) for _ in range(3)]
    await enqueue(storage, "send", tags=("a",))
    await enqueue(storage, "drop", queue="mail", tags=("a",))
    await enqueue(storage, "send", queue="mail")

    assert await find(storage, "a", queue="mail", kind="send", limit=2) == mine[:0:-1]
    assert await find(storage, "a", queue="mail", kind="send", before=mine[1]) == [mine[0]]
    assert await storage.jobs.count(State.PENDING, queue="mail", kind="send", with_tags=("a",)) == 3


async def test_a_tag_that_no_job_has_finds_nothing(storage):
    await enqueue(storage, tags=("a",))

    assert await find(storage, "b") == []
    assert await find(storage, "a", "b") == []
    assert await storage.jobs.count(State.PENDING, with_tags=("a", "b")) == 0


@pytest.mark.parametrize("move", [Move.CANCEL, Move.RETRY, Move.DELETE])
async def test_only_jobs_with_the_tags_are_moved(storage, move):
    me = await worker(storage)
    for state in move.states:
        theirs = await in_each_state(storage, me, tags=("b",))
        mine = [(await in_each_state(storage, me, tags=("a", "b")))[state] for _ in range(3)]

        changed = (await moved(storage, move, state, "a", "b", limit=2))[0]

        # of those before, some may have come to this state meanwhile
        assert changed >= 3
        assert (await storage.jobs.get(theirs[state])).state is state
        assert not set(mine) & set(await find(storage, "a", state=state)) or state is State.IN_PROGRESS


async def test_pending_jobs_that_waited_before_are_moved_by_tag(storage, clock):
    """They stand elsewhere in `ready` than where they were enqueued."""
    me = await worker(storage)
    late = [await enqueue(storage, delay=HOUR, tags=("a",)) for _ in range(3)]
    await clock.advance(hours=2)
    await storage.schedule.make_pending()
    await enqueue(storage, tags=("b",))

    assert await find(storage, "a", state=State.PENDING) == late[::-1]
    assert await moved(storage, Move.CANCEL, State.PENDING, "a", limit=2) == (3, 2)
    assert [(await storage.jobs.get(one)).state for one in late] == [State.DEAD] * 3
    assert len(await claim_ids(storage, me)) == 1


async def test_a_walk_by_tag_meets_one_kind_of_one_queue(storage):
    await storage.queues.ensure(["mail"])
    mine = await enqueue(storage, "send", queue="mail", tags=("a",))
    others = [
        await enqueue(storage, "send", tags=("a",)),
        await enqueue(storage, "drop", queue="mail", tags=("a",)),
    ]

    assert (await moved(storage, Move.DELETE, State.PENDING, "a", queue="mail", kind="send"))[0] == 1
    assert await find(storage, "a") == others[::-1]
    assert mine not in await find(storage)


async def test_tags_go_with_their_jobs(storage, database, clock):
    epoch = await leader(storage)
    me = await worker(storage)
    swept = await ended(storage, me, tags=("a", "b"))
    deleted = await enqueue(storage, tags=("a",))
    await storage.jobs.delete(deleted)
    await clock.advance(days=8)

    assert await storage.history.sweep(epoch=epoch) == 1

    assert await find(storage, "a") == []
    assert await database.rows("SELECT * FROM job_tag") == []
    with pytest.raises(JobNotFound):
        await storage.jobs.get(swept)


async def test_tags_go_where_nothing_is_kept(storage, database):
    me = await worker(storage)
    claims = [await running(storage, me, tags=("a",)) for _ in range(3)]
    await storage.claims.finish([done(claims[0], keep=False), dead(claims[1], keep=False), done(claims[2])])

    assert await database.rows("SELECT job_id FROM job_tag") == [(claims[2].job_id,)]


async def test_a_job_that_replaces_another_brings_its_own_tags(storage):
    replace = {"key": "k", "key_mode": KeyMode.REPLACE}
    first = await enqueue(storage, tags=("a", "b"), **replace)
    second = await enqueue(storage, tags=("b", "c"), **replace)
    assert first == second

    assert await find(storage, "a") == []
    assert await find(storage, "b", "c") == [first]
    third = await enqueue(storage, **replace)
    assert third == first
    assert (await storage.jobs.get(first)).tags == ()
    assert await find(storage, "b") == []


async def test_a_duplicate_keeps_the_tags_that_were_said_first(storage):
    first = await enqueue(storage, key="k", tags=("a",))
    await enqueue(storage, key="k", tags=("b",))

    assert (await storage.jobs.get(first)).tags == ("a",)
    assert await find(storage, "b") == []


async def test_jobs_of_retries_keep_their_tags(storage):
    me = await worker(storage)
    buried = await ended(storage, me, State.DEAD, tags=("a",))

    assert await moved(storage, Move.RETRY, State.DEAD, "a") == (1, 1)

    [claimed] = await claim(storage, me)
    assert claimed.job_id == buried
    assert await find(storage, "a", state=State.IN_PROGRESS) == [buried]
