"""What a handler saves of its job is there for the next attempt, and nobody else writes it."""

import asyncio
import contextlib
from datetime import timedelta

from msgspec.structs import replace

from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import LARGE_PAYLOAD, KeyMode, Removed, State
from tests.storage.factories import (
    claim,
    claim_ids,
    dead,
    done,
    ended,
    enqueue,
    failed,
    job,
    leader,
    lost_claims,
    running,
    state,
    worker,
)
from tests.storage.test_transactions import RolledBack

NOW = timedelta(0)


async def again(storage, me, claimed, **facts):
    """The attempt failed; return the claim of the next one."""
    await storage.claims.postpone([failed(claimed, delay=NOW, **facts)])
    await storage.schedule.make_pending()
    [anew] = await claim(storage, me)
    assert anew.job_id == claimed.job_id
    return anew


async def test_the_next_attempt_has_what_was_saved(storage):
    me = await worker(storage)
    first = await running(storage, me)
    assert first.state is None
    assert await storage.saved_states.save(first, b"[1]")
    assert await storage.saved_states.save(first, b"[1,2]")

    second = await again(storage, me, first)
    third = await again(storage, me, second)

    assert (second.state, third.state, third.attempt) == (b"[1,2]", b"[1,2]", 3)


async def test_each_job_has_a_state_of_its_own(storage):
    me = await worker(storage)
    one, other, none = [await running(storage, me) for _ in range(3)]
    await storage.saved_states.save(one, b"1")
    await storage.saved_states.save(other, b"2")
    await storage.claims.postpone([failed(claimed, delay=NOW) for claimed in (one, other, none)])

    states = {claimed.job_id: claimed.state for claimed in await claim(storage, me)}

    assert states == {one.job_id: b"1", other.job_id: b"2", none.job_id: None}


async def test_a_large_state_is_read_with_the_payload_and_not_with_the_claim(storage):
    me = await worker(storage)
    small, large = b"s" * LARGE_PAYLOAD, b"l" * (LARGE_PAYLOAD + 1)
    one, other = await running(storage, me), await running(storage, me)
    await storage.saved_states.save(one, small)
    await storage.saved_states.save(other, large)
    await storage.claims.postpone([failed(claimed, delay=NOW) for claimed in (one, other)])

    claims = {claimed.job_id: claimed for claimed in await claim(storage, me)}

    mine, later = claims[one.job_id], claims[other.job_id]
    assert (mine.payload, mine.state, later.payload, later.state) == (b"{}", small, None, None)
    assert await storage.claims.payload(later) == b"{}"
    assert later.state == large


async def test_a_key_is_taken_from_a_job_that_saves_its_state_in_a_transaction(storage, database):
    me = await worker(storage)
    for key_mode in (None, KeyMode.REPLACE):
        claimed = await running(storage, me, key="k")
        async with database.transaction() as connection:
            assert await storage.saved_states.save(claimed, b"1", connection=connection)
            if database.kind == "postgres":  # SQLite has one writer at a time
                async with asyncio.timeout(4):
                    if key_mode is None:
                        assert await storage.keys.remove("work", "k") is Removed.WILL_NOT_RETRY
                    else:
                        answer = await storage.jobs.enqueue(job(key="k", key_mode=key_mode))
                        assert answer.supersedes == claimed.job_id
        await storage.claims.finish([done(claimed)])


async def test_a_job_with_groups_and_time_limits_keeps_its_state_too(storage, clock):
    me = await worker(storage)
    facts = {"groups": encoded([Group("customer:42")]), "deadline": timedelta(days=1)}
    first = await running(storage, me, **facts)
    await storage.saved_states.save(first, b"1")

    second = await again(storage, me, first)

    assert second.state == b"1" and second.limits is not None
    await storage.claims.finish([done(second)])


async def test_a_state_outlives_the_worker_that_saved_it(storage, clock):
    first = await running(storage, await worker(storage))
    await storage.saved_states.save(first, b"1")
    await clock.advance(seconds=31)
    [lost] = await lost_claims(storage)
    await storage.claims.postpone([failed(lost, "worker lost", delay=NOW)])
    await storage.schedule.make_pending()

    [second] = await claim(storage, await worker(storage))

    assert second.state == b"1"


async def test_an_attempt_that_was_taken_back_saves_nothing(storage):
    me = await worker(storage)
    first = await running(storage, me)
    second = await again(storage, me, first)

    assert not await storage.saved_states.save(first, b"1")
    assert not await storage.saved_states.set_result(first, b"1")

    third = await again(storage, me, second)
    await storage.claims.finish([done(third)])
    found = await storage.jobs.get(first.job_id)
    assert (third.state, found.result) == (None, None)


async def test_an_attempt_that_has_ended_saves_nothing(storage):
    claimed = await running(storage, await worker(storage))
    await storage.claims.finish([done(claimed)])
    assert not await storage.saved_states.save(claimed, b"1")


async def test_a_stranger_saves_nothing(storage):
    claimed = await running(storage, await worker(storage))
    assert not await storage.saved_states.save(replace(claimed, worker_id=claimed.worker_id + 1), b"1")


async def test_what_is_saved_in_a_callers_transaction_holds_if_that_commits(storage, database):
    me = await worker(storage)
    first = await running(storage, me)
    async with database.transaction() as connection:
        assert await storage.saved_states.save(first, b"1", connection=connection)
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            assert await storage.saved_states.save(first, b"2", connection=connection)
            raise RolledBack

    assert (await again(storage, me, first)).state == b"1"


async def test_the_first_state_of_a_job_is_undone_with_its_transaction(storage, database):
    me = await worker(storage)
    first = await running(storage, me)
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            await storage.saved_states.save(first, b"1", connection=connection)
            raise RolledBack

    assert (await again(storage, me, first)).state is None


async def test_the_result_that_was_set_last_counts_where_the_handler_returns_none(storage):
    me = await worker(storage)
    silent, speaking = await running(storage, me), await running(storage, me)
    for claimed in (silent, speaking):
        await storage.saved_states.set_result(claimed, b"1")
        await storage.saved_states.set_result(claimed, b"2")
    await storage.claims.finish([done(silent), done(speaking, result=b"3")])

    results = [(await storage.jobs.get(claimed.job_id)).result for claimed in (silent, speaking)]

    assert results == [b"2", b"3"]


async def test_a_result_that_was_set_is_kept_when_the_job_dies(storage):
    claimed = await running(storage, await worker(storage))
    await storage.saved_states.set_result(claimed, b"half")
    await storage.claims.finish([dead(claimed)])

    found = await storage.jobs.get(claimed.job_id)

    assert (found.state, found.result) == (State.DEAD, b"half")
    [listed] = await storage.jobs.find(state=State.DEAD)
    assert listed.result == b"half"


async def test_a_result_can_be_taken_back(storage):
    claimed = await running(storage, await worker(storage))
    await storage.saved_states.set_result(claimed, b"1")
    await storage.saved_states.set_result(claimed, None)
    assert (await storage.jobs.get(claimed.job_id)).result is None


async def test_a_dead_job_that_is_retried_goes_on_from_its_state(storage):
    me = await worker(storage)
    claimed = await running(storage, me)
    await storage.saved_states.save(claimed, b"1")
    await storage.claims.finish([dead(claimed)])

    await storage.jobs.retry(claimed.job_id)

    [anew] = await claim(storage, me)
    assert (anew.attempt, anew.state) == (1, b"1")


async def test_a_job_that_is_replaced_has_no_state(storage):
    me = await worker(storage)
    claimed = await running(storage, me, key="k")
    await storage.saved_states.save(claimed, b"1")
    await storage.claims.postpone([failed(claimed)])

    replaced = await enqueue(storage, key="k", key_mode=KeyMode.REPLACE, payload=b'{"other":1}')

    [anew] = await claim(storage, me)
    assert (anew.job_id, replaced, anew.state) == (claimed.job_id, claimed.job_id, None)


async def test_what_was_saved_goes_with_its_job(storage, database, clock):
    me = await worker(storage)
    await storage.queues.set("brief", {"done_retention": NOW})
    deleted, swept, dropped = [
        await running(storage, me), await running(storage, me), await running(storage, me, queue="brief")
    ]  # fmt: skip
    for claimed in (deleted, swept, dropped):
        await storage.saved_states.save(claimed, b"1")
    await storage.claims.finish([done(deleted), done(swept), done(dropped, keep=False)])

    await storage.jobs.delete(deleted.job_id)
    await clock.advance(days=8)
    await storage.history.sweep(epoch=await leader(storage))

    assert await database.rows("SELECT job_id FROM saved_state") == []


async def test_a_job_that_saved_a_state_ends_and_waits_as_others_do(storage):
    me = await worker(storage)
    first = await running(storage, me)
    await storage.saved_states.save(first, b"1")
    second = await again(storage, me, first)
    await storage.claims.hand_back([second])
    assert await claim_ids(storage, me) == [first.job_id]
    await storage.jobs.cancel(first.job_id)
    assert await state(storage, await ended(storage, me)) is State.DONE
    assert await storage.claims.postpone([failed(second)]) == []
    assert await state(storage, first.job_id) is State.DEAD


async def test_the_next_job_of_a_key_reads_what_was_saved_for_it(storage):
    me = await worker(storage)
    first = await running(storage, me, key="k", codec="msgpack")
    assert await storage.saved_states.of_key(first) is None
    assert await storage.saved_states.save_for_key(first, b"1")
    assert await storage.saved_states.save_for_key(first, b"2")
    await storage.claims.finish([done(first)])
    await storage.jobs.delete(first.job_id)

    second = await running(storage, me, key="k")
    other_key, other_kind = await running(storage, me, key="m"), await running(storage, me, "other", key="k")

    assert await storage.saved_states.of_key(second) == (b"2", "msgpack")
    assert (
        await storage.saved_states.of_key(other_key) is await storage.saved_states.of_key(other_kind) is None
    )
    await storage.saved_states.save_for_key(second, None)
    assert await storage.saved_states.of_key(second) is None


async def test_only_the_attempt_that_has_the_key_saves_for_it(storage):
    me = await worker(storage)
    first = await running(storage, me, key="k")
    second = await again(storage, me, first)
    assert not await storage.saved_states.save_for_key(first, b"1")
    await enqueue(storage, key="k", key_mode=KeyMode.REPLACE)
    assert not await storage.saved_states.save_for_key(second, b"1")  # it lost its key to the new one

    [third] = await claim(storage, me)

    assert await storage.saved_states.of_key(third) is None
    assert await storage.saved_states.save_for_key(third, b"1")


async def test_what_is_saved_for_a_key_shares_the_fate_of_a_callers_transaction(storage, database):
    claimed = await running(storage, await worker(storage), key="k")
    async with database.transaction() as connection:
        assert await storage.saved_states.save_for_key(claimed, b"1", connection=connection)
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            assert await storage.saved_states.save_for_key(claimed, b"2", connection=connection)
            raise RolledBack
    assert await storage.saved_states.of_key(claimed) == (b"1", "json")
