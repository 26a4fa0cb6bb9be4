"""What groups still need when a transaction has ended that could not see to it, as only a server has them."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from forge_jobs.errors import StorageRefused, StorageUnavailable
from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import KeyMode, State
from forge_jobs.model.match import Move
from forge_jobs.model.run import Outcome
from forge_jobs.storage.postgres import fires, schedule
from tests.storage.ear import Ear
from tests.storage.factories import (
    claim,
    cron,
    dead,
    done,
    enqueue,
    job,
    leader,
    move_all,
    running,
    state,
    worker,
)

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)

NEWEST = {"groups": encoded([Group("a", overflow="cancel_running")])}
ONE = {"groups": encoded([Group("a")])}
FAILS = "SELECT 1 / 0"


async def locked(connection, job_id):
    await connection.execute("SELECT FROM forge_jobs.claimed WHERE job_id = $1 FOR UPDATE", job_id)


async def test_a_running_job_that_a_transaction_holds_is_cancelled_for_a_newer_one_after_that(
    storage, database
):
    me = await worker(storage)
    first = await enqueue(storage, **NEWEST)
    [running] = await claim(storage, me)

    async with database.transaction() as connection:
        await locked(connection, first)
        second = await enqueue(storage, **NEWEST)
        await storage.schedule.make_pending()
        assert (await storage.jobs.get(first)).cancel_requested_at is None
    await storage.schedule.make_pending()

    assert (await storage.jobs.get(first)).cancel_requested_at is not None
    assert await state(storage, second) is State.BLOCKED
    await storage.claims.finish([dead(running, "cancelled by user")])
    assert await state(storage, second) is State.PENDING
    assert await database.rows("SELECT * FROM unsettled") == []


async def test_a_running_job_that_ends_while_a_transaction_holds_it_is_cancelled_by_nobody(storage, database):
    me = await worker(storage)
    first = await enqueue(storage, **NEWEST)
    [running] = await claim(storage, me)
    async with database.transaction() as connection:
        await locked(connection, first)
        second = await enqueue(storage, **NEWEST)
    await storage.claims.finish([done(running)])

    await storage.schedule.make_pending()

    assert (await state(storage, first), await state(storage, second)) == (State.DONE, State.PENDING)
    assert await database.rows("SELECT * FROM unsettled") == []


async def test_many_that_are_locked_hide_none_that_is_not(storage, database, monkeypatch):
    monkeypatch.setattr("forge_jobs.storage.postgres.groups.MOST_LOCKED", 1)
    me = await worker(storage)
    held = await enqueue(storage, groups=encoded([Group("b")]))
    free = await enqueue(storage, **ONE)
    await claim(storage, me)

    async with database.transaction() as connection:
        await locked(connection, held)
        await database.run(f"INSERT INTO unsettled (job_id) VALUES ({held}), ({free})")
        while (await storage.jobs.get(free)).cancel_requested_at is None:
            await storage.schedule.make_pending()

    await storage.schedule.make_pending()
    assert (await storage.jobs.get(held)).cancel_requested_at is not None


@pytest.mark.parametrize("move", [Move.CANCEL, Move.DELETE])
async def test_a_place_that_jobs_leave_together_is_given_away_although_a_group_was_locked(
    storage, database, monkeypatch, move
):
    """Whoever was to look again at once does not get to it."""

    async def nobody(*_):
        pass

    monkeypatch.setattr("forge_jobs.storage.postgres.groups.admit", nobody)
    await enqueue(storage, **ONE)
    second = await enqueue(storage, groups=encoded([Group("a"), Group("b")]))

    async with database.transaction() as connection:
        await connection.execute("SELECT FROM forge_jobs.job_group WHERE name = 'b' FOR NO KEY UPDATE")
        async for _ in move_all(storage, move, State.PENDING):
            pass
        assert await state(storage, second) is State.BLOCKED
    await storage.schedule.make_pending()

    assert await state(storage, second) is State.PENDING


async def meanwhile(database, call, ends):
    """Return what the call returns, which has to wait until `ends` has run."""
    task = asyncio.create_task(call)
    while not task.done() and not await database.rows(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ):
        await asyncio.sleep(0)
    assert not task.done()
    await ends()
    return await task


@asynccontextmanager
async def begun(database):
    """A transaction, and what commits it."""
    connection = await asyncpg.connect(database.url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        yield connection, transaction.commit
    finally:
        await connection.close()


async def joining(connection, **facts):
    """A job joins its groups in this transaction, as it does in one of ours."""
    [job_id] = await connection.fetchrow("SELECT nextval('forge_jobs.job_id_seq')")
    await connection.execute(
        "INSERT INTO forge_jobs.job (id, queue_id, priority, max_attempts, kind, codec, created_at, payload, links, groups) "
        "VALUES ($1, 1, 0, 1, 'work', 'json', now(), '', 1, $2)",
        job_id,
        facts["groups"],
    )
    await connection.execute(
        "SELECT forge_jobs.join_groups(ARRAY[$1::bigint], ARRAY[1], ARRAY[0::smallint], ARRAY[0], ARRAY[1::bigint], ARRAY[$2::text], "
        "ARRAY[now()], ARRAY[true])",
        job_id,
        facts["groups"],
    )
    return job_id


async def test_a_group_that_is_paused_while_its_first_job_joins_it_blocks_that_job(storage, database):
    async with begun(database) as (connection, commit):
        first = await joining(connection, **ONE)

        pausing = storage.groups.pause("a", until=None, reason=None)
        await meanwhile(database, pausing, commit)

    assert await state(storage, first) is State.BLOCKED
    assert await storage.groups.resume("a")
    assert await state(storage, first) is State.PENDING


async def test_a_group_that_is_resumed_while_its_first_job_joins_it_has_a_place_for_that_job(
    storage, database
):
    await storage.groups.pause("a", until=None, reason=None)
    async with begun(database) as (connection, commit):
        first = await joining(connection, **ONE)

        await meanwhile(database, storage.groups.resume("a"), commit)

    assert await state(storage, first) is State.PENDING


@pytest.mark.parametrize("is_paused", [True, False])
async def test_the_first_job_that_joins_a_group_while_that_is_paused_or_resumed_waits_or_not(
    storage, database, is_paused
):
    if not is_paused:
        await storage.groups.pause("a", until=None, reason=None)
    async with begun(database) as (connection, commit):
        if is_paused:
            await connection.execute(
                "INSERT INTO forge_jobs.paused_group (name, paused_at) VALUES ('a', now())"
            )
        else:
            await connection.execute("DELETE FROM forge_jobs.paused_group")
        await connection.execute("SELECT forge_jobs.switched(ARRAY['a'])")

        first = await meanwhile(database, enqueue(storage, **ONE), commit)

    assert await state(storage, first) is (State.BLOCKED if is_paused else State.PENDING)


async def test_pausing_and_resuming_a_group_that_nobody_uses_leaves_no_row(storage, database):
    await storage.groups.pause("a", until=None, reason=None)
    await storage.groups.resume("a")

    assert await database.rows("SELECT * FROM job_group") == []
    assert await database.rows("SELECT * FROM unsettled") == []


async def test_a_job_that_is_handed_back_while_its_group_is_paused_is_blocked(storage, database):
    """The pause is committed after the hand-back has begun, and has not seen its job pending."""
    claimed = await running(storage, await worker(storage), **ONE)
    async with begun(database) as (connection, commit):
        await connection.execute("INSERT INTO forge_jobs.paused_group (name, paused_at) VALUES ('a', now())")
        await connection.execute("SELECT forge_jobs.switched(ARRAY['a'])")

        await meanwhile(database, storage.claims.hand_back([claimed]), commit)

    assert await state(storage, claimed.job_id) is State.BLOCKED


async def test_a_pending_job_that_somebody_has_locked_while_its_group_is_paused_is_blocked_after_that(
    storage, database
):
    first = await enqueue(storage, key="k", **ONE)
    async with database.transaction() as connection:
        replacing = job(key="k", key_mode=KeyMode.PRESERVE_RUN_AT, **ONE)
        assert (await storage.jobs.enqueue(replacing, connection=connection)).replaced
        await storage.groups.pause("a", until=None, reason=None)
    await storage.schedule.make_pending()

    assert await state(storage, first) is State.BLOCKED
    await storage.schedule.make_pending()
    assert await database.rows("SELECT * FROM unsettled") == []


@pytest.mark.parametrize("change", ["pause", "resume", "set", "unset"])
async def test_what_a_change_of_a_group_leaves_is_done_though_its_maker_dies(
    storage, database, monkeypatch, change
):
    """Another group of the job is locked meanwhile, and nobody goes on after the commit."""
    both = {"groups": encoded([Group("a"), Group("b")])}
    if change == "pause":
        await enqueue(storage, **both)
        waiting = await enqueue(storage, groups=encoded([Group("b")]))
    else:
        if change == "unset":
            await enqueue(storage, groups=encoded([Group("a", limit=2)]))
            await storage.groups.set("a", 1)
        elif change == "set":
            await enqueue(storage, **ONE)
        else:
            await storage.groups.pause("a", until=None, reason=None)
        waiting = await enqueue(storage, **both)
    assert await state(storage, waiting) is State.BLOCKED

    async def dies(*_):
        raise ConnectionError

    async with database.transaction() as connection:
        if change != "pause":
            await connection.execute("SELECT FROM forge_jobs.job_group WHERE name = 'b' FOR NO KEY UPDATE")
        monkeypatch.setattr("forge_jobs.storage.postgres.groups.admit", dies)
        with pytest.raises(ConnectionError):
            await {
                "pause": lambda: storage.groups.pause("a", until=None, reason=None),
                "resume": lambda: storage.groups.resume("a"),
                "set": lambda: storage.groups.set("a", 2),
                "unset": lambda: storage.groups.set("a", None),
            }[change]()
        assert await state(storage, waiting) is State.BLOCKED
    monkeypatch.undo()
    await storage.schedule.make_pending()

    assert await state(storage, waiting) is State.PENDING


@pytest.mark.parametrize("how", ["replace", "remove", "sql"])
async def test_workers_are_told_of_the_commit_that_frees_a_place(storage, database, how):
    await enqueue(storage, key="k", **ONE)
    async with Ear(storage) as ear:
        async with database.transaction() as connection:
            if how == "remove":
                await storage.keys.remove("work", "k", connection=connection)
            elif how == "sql":
                await connection.execute("SELECT forge_jobs.remove('work', 'k')")
            else:
                replacing = job(key="k", key_mode=KeyMode.REPLACE)
                await storage.jobs.enqueue(replacing, connection=connection)
        await ear.hears("due")


async def test_a_place_that_is_freed_while_the_next_job_is_locked_is_given_away_at_a_later_look(
    storage, database
):
    me = await worker(storage)
    await enqueue(storage, **ONE)
    second = await enqueue(storage, **ONE)
    [running] = await claim(storage, me)

    async with database.transaction() as connection:
        await connection.execute("SELECT FROM forge_jobs.blocked WHERE job_id = $1 FOR UPDATE", second)
        await storage.claims.finish([done(running)])
        await storage.schedule.make_pending()
        assert await state(storage, second) is State.BLOCKED
    await storage.schedule.make_pending()

    assert await state(storage, second) is State.PENDING
    assert await database.rows("SELECT * FROM unsettled") == []


async def test_of_jobs_enqueued_together_those_with_groups_alone_join_any(storage, monkeypatch):
    joined = []

    async def join(database, job_ids):
        joined.extend(job_ids)
        return await schedule.join(database, job_ids)

    monkeypatch.setattr("forge_jobs.storage.postgres.bulk.join", join)
    monkeypatch.setattr("forge_jobs.storage.postgres.enqueue.SMALL_BATCH", 1)

    answers = await storage.jobs.enqueue_many([job(**facts) for facts in ({}, ONE, {}, ONE)])

    assert joined == [answers[1].id, answers[3].id]
    assert [await state(storage, one) for one in joined] == [State.PENDING, State.BLOCKED]


async def test_a_group_whose_line_is_empty_leaves_nothing_to_a_later_look(storage, database):
    me = await worker(storage)
    for _ in range(2):
        await enqueue(storage, **ONE)
        await storage.claims.finish([done(one) for one in await claim(storage, me)])

    assert await database.rows("SELECT * FROM unsettled") == []


async def test_what_is_due_is_pending_although_what_groups_need_fails(storage, database, monkeypatch, clock):
    due = await enqueue(storage, delay=timedelta(minutes=1))
    await clock.advance(minutes=2)
    await database.run("INSERT INTO unsettled (group_id) VALUES (1)")
    monkeypatch.setattr("forge_jobs.storage.postgres.groups.SETTLE", FAILS)

    assert await storage.schedule.make_pending() == (1, timedelta(0))

    assert await state(storage, due) is State.PENDING
    with pytest.raises(StorageRefused, match="division by zero"):  # and whoever looks hears of it
        await storage.schedule.make_pending()


async def test_an_end_is_written_although_the_place_cannot_be_given_to_the_next(
    storage, database, monkeypatch
):
    claimed = await running(storage, await worker(storage), **ONE)
    waits = await enqueue(storage, groups=encoded([Group("a"), Group("b")]))
    with monkeypatch.context() as failing:
        failing.setattr(
            "forge_jobs.storage.postgres.groups.ADMIT", f"{FAILS} WHERE $1::integer[] IS NOT NULL"
        )
        async with database.transaction() as connection:
            await connection.execute("SELECT FROM forge_jobs.job_group WHERE name = 'b' FOR NO KEY UPDATE")
            assert await storage.claims.finish([done(claimed)]) == []

    assert await state(storage, waits) is State.BLOCKED
    await storage.schedule.make_pending()
    assert await state(storage, waits) is State.PENDING


async def test_what_groups_need_is_left_to_a_later_pass_where_it_takes_long(storage, database, monkeypatch):
    await database.run("INSERT INTO unsettled (group_id) VALUES (1)")
    with monkeypatch.context() as hurried:
        hurried.setattr(schedule, "LONGEST_SETTLING", 0)
        assert await storage.schedule.make_pending() == (0, schedule.HELD_FOR)

    assert await storage.schedule.make_pending() == (0, None)
    assert await database.rows("SELECT * FROM unsettled") == []


async def test_the_fate_of_a_job_is_known_although_its_place_cannot_be_given_away(
    storage, database, monkeypatch
):
    claimed = await running(storage, await worker(storage), **ONE)
    async with database.transaction() as connection:
        at = await storage.completions.complete(done(claimed), connection=connection)
    monkeypatch.setattr("forge_jobs.storage.postgres.groups.SETTLE", FAILS)

    proof = Completion(claimed.job_id, claimed.worker_id, claimed.attempt, at, Outcome.DONE)
    assert await storage.completions.fate(proof) is Fate.COMMITTED


async def test_what_was_asked_for_is_done_although_what_other_groups_need_fails(
    storage, database, monkeypatch
):
    epoch, night = await leader(storage), datetime(2030, 1, 1, 3, tzinfo=UTC)
    replacing = job(key="k", key_mode=KeyMode.REPLACE)
    await storage.jobs.enqueue(replacing)
    await storage.crons.set(cron(next_fire_at=night, **ONE))
    await database.run("INSERT INTO unsettled (group_id) VALUES (1)")
    monkeypatch.setattr("forge_jobs.storage.postgres.groups.SETTLE", FAILS)

    [fired] = await storage.fires.fire(await storage.crons.get("nightly"), [night], None, epoch=epoch)
    replaced, _ = await storage.jobs.enqueue_many([replacing, job()])

    assert await state(storage, fired.id) is State.PENDING
    assert replaced.replaced


async def test_jobs_that_are_enqueued_wait_for_a_worker_that_lets_them_in_where_that_fails(
    storage, monkeypatch
):
    with monkeypatch.context() as failing:
        failing.setattr(schedule, "JOIN", "SELECT 1 / 0 WHERE ($1::bigint[], $2::text) IS NOT NULL")
        answers = await storage.jobs.enqueue_many([job(**ONE) for _ in range(300)])
    await storage.schedule.make_pending()

    assert len(await claim(storage, await worker(storage), limit=300)) == 1
    assert len({answer.id for answer in answers}) == 300


async def test_a_cron_fires_although_somebody_has_its_group_locked(storage, database):
    epoch = await leader(storage)
    await enqueue(storage, **ONE)
    night = datetime(2030, 1, 1, 3, tzinfo=UTC)
    await storage.crons.set(cron(next_fire_at=night, **ONE))

    async with database.transaction() as connection:
        await connection.execute("SELECT FROM forge_jobs.job_group WHERE name = 'a' FOR NO KEY UPDATE")
        [fired] = await storage.fires.fire(await storage.crons.get("nightly"), [night], None, epoch=epoch)
        assert await state(storage, fired.id) is State.SCHEDULED

    await storage.schedule.make_pending()
    assert await state(storage, fired.id) is State.BLOCKED


async def test_a_leader_that_is_frozen_while_a_cron_fires_keeps_nobody_from_the_group(
    storage, database, monkeypatch
):
    epoch = await leader(storage)
    night = datetime(2030, 1, 1, 3, tzinfo=UTC)
    await storage.crons.set(cron(next_fire_at=night, **ONE))
    fire = fires.PostgresFires._fire

    async def freezes(*given, **said):
        made = await fire(*given, **said)
        assert await state(storage, await enqueue(storage, **ONE)) is State.PENDING  # it waits for the group
        return made

    with monkeypatch.context() as frozen:
        frozen.setattr(fires, "FROZEN", 0.1)
        frozen.setattr(fires.PostgresFires, "_fire", freezes)
        with pytest.raises(StorageUnavailable):
            await storage.fires.fire(await storage.crons.get("nightly"), [night], None, epoch=epoch)

    [fired] = await storage.fires.fire(await storage.crons.get("nightly"), [night], None, epoch=epoch)
    assert await state(storage, fired.id) is State.BLOCKED
