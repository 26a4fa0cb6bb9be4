"""A signal ends the wait that it meets, is kept for one that comes later, and never does both."""

import contextlib
import dataclasses
from datetime import timedelta

import pytest
from msgspec.structs import replace

from forge_jobs.errors import WrongState
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import Cancelled, KeyMode, Postponement, Reason, Removed, State
from forge_jobs.model.match import Move
from forge_jobs.model.signal import (
    LARGEST_VALUE,
    MOST_KEPT,
    MOST_SIGNALS,
    NewSignal,
    NewWait,
    Recipient,
    Signalled,
    SignalMode,
)
from forge_jobs.model.step import NewStep, StepSort
from tests.storage.factories import (
    WAIT,
    awaiting,
    claim,
    claim_ids,
    dead,
    done,
    ended,
    enqueue,
    failed,
    job,
    leader,
    move_all,
    parked,
    running,
    state,
    worker,
)
from tests.storage.test_transactions import RolledBack

NOW, HOUR = timedelta(0), timedelta(hours=1)
YES = NewSignal("approved", b'{"by":"ada"}')


async def send(storage, job_id, signal=YES, **options):
    [(answered, answer)] = await storage.signals.send(Recipient(job_id), signal, **options)
    assert answered == job_id
    return answer


async def wait(storage, job_id):
    """Return the only step of a job."""
    [step] = await storage.steps.of_job(job_id)
    return step


async def test_a_job_that_waits_holds_nothing_and_its_attempt_does_not_count(storage):
    me = await worker(storage)
    first = await awaiting(storage, me, max_attempts=1, timeout=60.0)

    waiting = await storage.jobs.get(first.job_id)
    assert (waiting.state, waiting.attempt) == (State.WAITING, 0)
    assert await storage.claims.held(me) == []
    [step] = waiting.steps
    assert (step.sort, step.signals, step.is_over, step.ended_at) == (
        StepSort.WAIT,
        ("approved",),
        False,
        None,
    )
    assert step.until - step.at == timedelta(seconds=60)
    [counts] = await storage.jobs.counts()
    assert (counts.waiting, counts.pending, counts.in_progress, counts.scheduled) == (1, 0, 0, 0)
    assert [found.id for found in await storage.jobs.find(state=State.WAITING)] == [first.job_id]


async def test_a_signal_wakes_the_job_that_waits_for_it(storage):
    me = await worker(storage)
    first = await awaiting(storage, me)

    assert await send(storage, first.job_id) is Signalled.WOKEN

    [second] = await claim(storage, me)
    assert (second.job_id, second.attempt) == (first.job_id, 1)
    step = await wait(storage, first.job_id)
    assert (step.is_over, step.signal, step.result, step.codec) == (True, "approved", b'{"by":"ada"}', "json")


async def test_the_value_of_a_signal_has_the_codec_of_its_sender(storage):
    me = await worker(storage)
    first = await awaiting(storage, me, codec="msgpack")
    await send(storage, first.job_id)
    assert (await wait(storage, first.job_id)).codec == "json"


async def test_a_signal_before_its_wait_is_kept_for_it(storage):
    me = await worker(storage)
    early = await enqueue(storage)
    assert await send(storage, early) is Signalled.KEPT
    [first] = await claim(storage, me)

    step = await storage.signals.wait(first, NewWait(1, WAIT, ("approved",)))

    assert (step.is_over, step.signal, step.result) == (True, "approved", b'{"by":"ada"}')
    [signal] = await storage.signals.of_job(early)
    assert (signal.name, signal.step) == ("approved", WAIT)


async def test_a_signal_between_the_wait_and_the_end_of_its_attempt_is_not_missed(storage):
    me = await worker(storage)
    first = await running(storage, me)
    assert not (await storage.signals.wait(first, NewWait(1, WAIT, ("approved",)))).is_over
    assert await send(storage, first.job_id) is Signalled.KEPT

    assert await storage.claims.postpone([parked(first)]) == []

    await storage.schedule.make_pending()
    assert await claim_ids(storage, me) == [first.job_id]
    assert (await wait(storage, first.job_id)).signal == "approved"


async def test_a_wait_ends_by_the_first_of_several_signals(storage):
    me = await worker(storage)
    first = await awaiting(storage, me, "approved", "refused")
    assert await send(storage, first.job_id, NewSignal("other")) is Signalled.KEPT
    assert await state(storage, first.job_id) is State.WAITING
    assert await send(storage, first.job_id, NewSignal("refused")) is Signalled.WOKEN
    assert await send(storage, first.job_id) is Signalled.KEPT
    assert (await wait(storage, first.job_id)).signal == "refused"


async def test_the_first_signal_of_a_name_counts(storage):
    me = await worker(storage)
    first = await running(storage, me)
    assert await send(storage, first.job_id, NewSignal("approved", b"1")) is Signalled.KEPT
    assert await send(storage, first.job_id, NewSignal("approved", b"2")) is Signalled.DUPLICATE
    step = await storage.signals.wait(first, NewWait(1, WAIT, ("approved",)))
    assert step.result == b"1"
    assert await send(storage, first.job_id, NewSignal("approved", b"3")) is Signalled.DUPLICATE


async def test_signals_that_are_appended_are_taken_in_their_order(storage):
    me = await worker(storage)
    first = await running(storage, me)
    for value in (b"1", b"2", b"3"):
        page = NewSignal("page", value, mode=SignalMode.APPEND)
        assert await send(storage, first.job_id, page) is Signalled.KEPT

    taken = [await storage.signals.wait(first, NewWait(n, f"page {n}", ("page",))) for n in (1, 2, 3, 4)]

    assert [step.result for step in taken] == [b"1", b"2", b"3", None]
    assert [step.is_over for step in taken] == [True, True, True, False]


async def test_a_wait_times_out_by_the_databases_clock(storage, clock):
    me = await worker(storage)
    first = await awaiting(storage, me, timeout=60.0)
    _, next_in = await storage.schedule.make_pending()
    assert timedelta(seconds=50) < next_in <= timedelta(seconds=60)
    await clock.advance(seconds=59)
    await storage.schedule.make_pending()
    assert await state(storage, first.job_id) is State.WAITING

    await clock.advance(seconds=2)
    await storage.schedule.make_pending()

    assert await claim_ids(storage, me) == [first.job_id]
    step = await wait(storage, first.job_id)
    assert (step.is_over, step.signal, step.result) == (True, None, None)


async def test_a_signal_after_the_timeout_is_kept_and_does_not_end_the_wait_again(storage, clock):
    me = await worker(storage)
    first = await awaiting(storage, me, timeout=60.0)
    await clock.advance(seconds=61)
    await storage.schedule.make_pending()

    assert await send(storage, first.job_id) is Signalled.KEPT

    [second] = await claim(storage, me)
    assert (await storage.signals.wait(second, NewWait(1, WAIT, ("approved",)))).signal is None
    assert (await storage.signals.wait(second, NewWait(2, "again", ("approved",)))).signal == "approved"


async def test_a_signal_wins_while_nobody_has_looked_at_the_timeout(storage, clock):
    me = await worker(storage)
    first = await awaiting(storage, me, timeout=60.0)
    await clock.advance(seconds=61)
    assert await send(storage, first.job_id) is Signalled.WOKEN
    assert (await storage.schedule.make_pending())[0] == 0
    assert await claim_ids(storage, me) == [first.job_id]


async def test_a_wait_begins_when_it_is_come_to_for_the_first_time(storage, clock):
    me = await worker(storage)
    first = await running(storage, me)
    begun = await storage.signals.wait(first, NewWait(1, WAIT, ("approved",), timeout=60.0))
    await storage.claims.postpone([failed(first, delay=NOW)])
    await clock.advance(seconds=30)
    [second] = await claim(storage, me)

    assert await storage.signals.wait(second, NewWait(1, WAIT, ("approved",), timeout=60.0)) == begun

    await clock.advance(seconds=31)
    assert (await storage.signals.wait(second, NewWait(1, WAIT, ("approved",), timeout=60.0))).is_over


async def test_a_wait_without_time_asks_whether_the_signal_is_there(storage):
    first = await running(storage, await worker(storage))
    step = await storage.signals.wait(first, NewWait(1, WAIT, ("approved",), timeout=0.0))
    assert (step.is_over, step.signal) == (True, None)


async def test_an_attempt_that_was_taken_back_begins_no_wait(storage):
    me = await worker(storage)
    first = await running(storage, me)
    await storage.claims.postpone([failed(first, delay=NOW)])
    await claim(storage, me)
    assert await storage.signals.wait(first, NewWait(1, WAIT, ("approved",))) is None
    assert await storage.claims.postpone([parked(first)]) == [first.job_id]
    assert await storage.steps.of_job(first.job_id) == []
    assert await state(storage, first.job_id) is State.IN_PROGRESS


async def test_who_signals_an_ended_or_unknown_job_is_told(storage):
    me = await worker(storage)
    for how in (State.DONE, State.DEAD):
        assert await send(storage, await ended(storage, me, how)) is Signalled.ENDED
    assert await send(storage, 4711) is Signalled.UNKNOWN
    assert await storage.signals.send(Recipient(kind="work", key="a"), YES) == [(None, Signalled.UNKNOWN)]
    assert await storage.signals.send(Recipient(tag="a"), YES) == []


async def test_the_living_job_with_a_key_is_signalled(storage):
    me = await worker(storage)
    first = await awaiting(storage, me, key="order 7")
    assert await storage.signals.send(Recipient(kind="other", key="order 7"), YES) == [
        (None, Signalled.UNKNOWN)
    ]
    to_key = Recipient(kind="work", key="order 7")
    assert await storage.signals.send(to_key, YES) == [(first.job_id, Signalled.WOKEN)]
    [second] = await claim(storage, me)
    await storage.claims.finish([done(second)])
    assert await storage.signals.send(to_key, YES) == [(None, Signalled.UNKNOWN)]


async def test_all_living_jobs_with_a_tag_are_signalled(storage):
    me = await worker(storage)
    await ended(storage, me, tags=("night",))
    first, second = [await awaiting(storage, me, tags=("night", "x")) for _ in range(2)]
    early = await enqueue(storage, tags=("night",), delay=HOUR)
    other = await enqueue(storage, "other", tags=("night",), delay=HOUR)
    await enqueue(storage, tags=("day",), delay=HOUR)

    assert await storage.signals.send(Recipient(tag="night", kind="work", most=2), YES) == [
        (first.job_id, Signalled.WOKEN),
        (second.job_id, Signalled.WOKEN),
    ]
    assert await storage.signals.send(Recipient(tag="night", after=second.job_id), YES) == [
        (early, Signalled.KEPT),
        (other, Signalled.KEPT),
    ]


async def test_a_callback_token_sends_one_signal(storage):
    first = await running(storage, await worker(storage))
    by_token = NewSignal("approved", mode=SignalMode.APPEND, token="7f")
    assert await send(storage, first.job_id, by_token) is Signalled.KEPT
    assert await send(storage, first.job_id, by_token) is Signalled.USED
    assert await send(storage, first.job_id, replace(by_token, token="80")) is Signalled.KEPT


async def test_a_job_takes_only_so_many_signals(storage):
    waits = await enqueue(storage)
    more = NewSignal("more", mode=SignalMode.APPEND)
    for _ in range(MOST_SIGNALS):
        await storage.signals.send(Recipient(waits), more)
    assert await send(storage, waits, more) is Signalled.FULL
    assert await send(storage, waits) is Signalled.FULL


async def test_the_values_of_signals_that_no_wait_has_taken_are_bounded(storage):
    first = await running(storage, await worker(storage))
    large = NewSignal("page", b"7" * LARGEST_VALUE, mode=SignalMode.APPEND)
    for _ in range(MOST_KEPT // LARGEST_VALUE):
        assert await send(storage, first.job_id, large) is Signalled.KEPT
    assert await send(storage, first.job_id, large) is Signalled.FULL
    assert (
        await send(storage, first.job_id, NewSignal("page", b"7", mode=SignalMode.APPEND)) is Signalled.FULL
    )
    assert await send(storage, first.job_id, NewSignal("empty")) is Signalled.KEPT

    await storage.signals.wait(first, NewWait(1, "page 1", ("page",)))

    assert await send(storage, first.job_id, large) is Signalled.KEPT


async def test_a_job_shows_the_signals_that_no_wait_has_taken(storage):
    first = await running(storage, await worker(storage))
    for name, value in (("approved", b"1"), ("page", b"2"), ("stop", None)):
        await send(storage, first.job_id, NewSignal(name, value))
    await storage.signals.wait(first, NewWait(1, "page 1", ("page",)))

    kept = (await storage.jobs.get(first.job_id)).signals

    assert [(signal.name, signal.value, signal.codec) for signal in kept] == [
        ("approved", b"1", "json"),
        ("stop", None, "json"),
    ]


async def test_a_signal_in_a_callers_transaction_is_sent_if_that_commits(storage, database):
    me = await worker(storage)
    first = await awaiting(storage, me)
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            await send(storage, first.job_id, connection=connection)
            raise RolledBack
    assert await state(storage, first.job_id) is State.WAITING
    assert await storage.signals.of_job(first.job_id) == []

    async with database.transaction() as connection:
        assert await send(storage, first.job_id, connection=connection) is Signalled.WOKEN

    await storage.schedule.make_pending()
    assert await claim_ids(storage, me) == [first.job_id]


async def test_a_job_that_waits_can_be_cancelled_deleted_and_moved(storage):
    me = await worker(storage, ["default", "other"])
    first, second, third = [await awaiting(storage, me) for _ in range(3)]
    assert await storage.jobs.cancel(first.job_id) is Cancelled.DEAD
    assert await send(storage, first.job_id) is Signalled.ENDED
    await storage.jobs.delete(second.job_id)
    assert await storage.steps.of_job(second.job_id) == []
    async for _ in move_all(storage, Move.TRANSFER, State.WAITING, into="other"):
        pass
    assert await send(storage, third.job_id) is Signalled.WOKEN
    assert await claim_ids(storage, me, "other") == [third.job_id]


@pytest.mark.parametrize("move", [Move.CANCEL, Move.DELETE])
@pytest.mark.parametrize("facts", [{}, {"tags": ("night",)}])
async def test_all_jobs_that_wait_can_be_moved_at_once(storage, move, facts):
    me = await worker(storage)
    for _ in range(3):
        await awaiting(storage, me, **facts)
    moved = [step.changed async for step in move_all(storage, move, State.WAITING, **facts)]
    assert sum(moved) == 3
    assert await storage.jobs.count(State.WAITING) == 0


async def test_a_job_that_waits_gets_another_priority(storage):
    me = await worker(storage)
    first = await awaiting(storage, me)
    moved = [step.changed async for step in move_all(storage, Move.REPRIORITISE, State.WAITING, priority=7)]
    assert moved == [1]
    await send(storage, first.job_id)
    [second] = await claim(storage, me)
    assert second.priority == 7


async def test_a_dead_job_that_is_retried_waits_on_as_it_did(storage, clock):
    me = await worker(storage)
    first = await awaiting(storage, me, timeout=60.0)
    await storage.jobs.cancel(first.job_id)
    assert await storage.jobs.retry(first.job_id)
    [second] = await claim(storage, me)
    assert not (await storage.signals.wait(second, NewWait(1, WAIT, ("approved",)))).is_over
    await storage.claims.postpone([parked(second)])
    await clock.advance(seconds=61)
    await storage.schedule.make_pending()
    assert await claim_ids(storage, me) == [first.job_id]


async def test_a_job_is_not_cancelled_twice_when_it_is_cancelled_before_it_waits(storage):
    me = await worker(storage)
    first = await running(storage, me)
    await storage.signals.wait(first, NewWait(1, WAIT, ("approved",)))
    await storage.jobs.cancel(first.job_id)
    assert await storage.claims.postpone([parked(first)]) == []
    assert first.cancel_requested
    assert await state(storage, first.job_id) is State.DEAD
    assert await send(storage, first.job_id) is Signalled.ENDED


async def test_a_job_that_waits_has_no_place_in_its_group_and_gets_one_again(storage):
    group = encoded([Group("customer 7")])
    me = await worker(storage)
    first = await awaiting(storage, me, groups=group)
    second = await running(storage, me, groups=group)

    assert await send(storage, first.job_id) is Signalled.WOKEN

    await storage.schedule.make_pending()
    assert await state(storage, first.job_id) is State.BLOCKED
    await storage.claims.finish([done(second)])
    assert await claim_ids(storage, me) == [first.job_id]


async def test_a_job_of_a_tenant_that_waits_takes_a_turn_again(storage):
    me = await worker(storage)
    first = await awaiting(storage, me, tenant="ada")
    await send(storage, first.job_id)
    await storage.schedule.make_pending()
    assert await claim_ids(storage, me) == [first.job_id]


async def test_a_job_that_waits_keeps_its_key(storage):
    me = await worker(storage)
    first = await awaiting(storage, me, key="a")
    again = await storage.jobs.enqueue(job(key="a"))
    assert (again.id, again.duplicate) == (first.job_id, True)


@pytest.mark.parametrize("mode", [KeyMode.REPLACE, KeyMode.PRESERVE_RUN_AT])
async def test_a_job_that_waits_and_is_replaced_begins_anew(storage, mode):
    me = await worker(storage)
    first = await awaiting(storage, me, key="a", groups=encoded([Group("g")]))
    await send(storage, first.job_id, NewSignal("other"))

    replaced = await storage.jobs.enqueue(job(key="a", key_mode=mode, payload=b"[1]"))

    assert (replaced.id, replaced.replaced) == (first.job_id, True)
    await storage.schedule.make_pending()
    [second] = await claim(storage, me)
    assert (second.payload, second.attempt) == (b"[1]", 1)
    assert (await storage.steps.of_job(first.job_id), await storage.signals.of_job(first.job_id)) == ([], [])


async def test_the_job_of_a_key_is_removed_while_it_waits(storage):
    me = await worker(storage)
    first = await awaiting(storage, me, key="a")
    assert await storage.keys.remove("work", "a") is Removed.DELETED
    assert await send(storage, first.job_id) is Signalled.UNKNOWN


async def test_a_job_whose_deadline_comes_while_it_waits_is_dead(storage, clock):
    me = await worker(storage)
    first = await awaiting(storage, me, timeout=120.0, deadline=timedelta(seconds=60))
    assert await state(storage, first.job_id) is State.WAITING
    await clock.advance(seconds=61)

    [over], _ = await storage.time_limits.expire(epoch=await leader(storage))

    assert (over.job_id, over.expired) == (first.job_id, False)
    assert await state(storage, first.job_id) is State.DEAD
    assert await send(storage, first.job_id) is Signalled.ENDED


async def test_a_job_that_has_waited_need_not_begin_by_any_moment(storage, clock):
    me = await worker(storage)
    await awaiting(storage, me, start_by=timedelta(seconds=30))
    await clock.advance(seconds=60)
    assert (await storage.time_limits.expire(epoch=await leader(storage)))[0] == ()


async def test_signals_go_with_their_jobs(storage):
    me = await worker(storage)
    await storage.queues.set("default", {"dead_retention": NOW})
    first, second = await awaiting(storage, me), await enqueue(storage)
    await send(storage, first.job_id, NewSignal("other"))
    await send(storage, second)
    await storage.jobs.cancel(first.job_id)
    await storage.jobs.delete(second)
    for job_id in (first.job_id, second):
        assert list(await storage.signals.of_job(job_id)) == []


async def test_a_rerun_from_a_step_has_the_values_of_the_waits_before_it(storage):
    me = await worker(storage)
    first = await running(storage, me)
    await send(storage, first.job_id)
    taken = await storage.signals.wait(first, NewWait(1, WAIT, ("approved",)))
    await storage.steps.add(first, NewStep(2, "ship"))
    await storage.signals.wait(first, NewWait(3, "open", ("paid",)))
    await storage.claims.finish([dead(first)])

    rerun = await storage.steps.rerun(job(rerun_of=first.job_id), before=4)

    assert [step.name for step in await storage.steps.of_job(rerun.id)] == [WAIT, "ship"]
    assert (await storage.steps.of_job(rerun.id))[0] == dataclasses.replace(taken, done_by=first.job_id)


async def test_a_job_that_waits_is_not_run_before_its_time(storage):
    me = await worker(storage)
    first = await awaiting(storage, me)
    with pytest.raises(WrongState, match="waiting"):
        await storage.jobs.run_now(first.job_id)


async def test_jobs_that_wait_and_others_are_postponed_together(storage):
    me = await worker(storage)
    first, second, third = [await running(storage, me) for _ in range(3)]
    await storage.signals.wait(first, NewWait(1, WAIT, ("approved",)))
    later = Postponement(third, Reason.RESCHEDULED, HOUR, payload=b"[2]")
    await storage.claims.postpone([parked(first), failed(second), later])
    assert [await state(storage, one.job_id) for one in (first, second, third)] == [
        State.WAITING,
        State.RETRYING,
        State.SCHEDULED,
    ]
    assert (await storage.jobs.get(third.job_id)).payload == b"[2]"


async def test_a_queue_with_jobs_that_wait_is_not_empty(storage):
    me = await worker(storage, ["mail"])
    await awaiting(storage, me, queue="mail")
    found = next(queue for queue in await storage.queues.all() if queue.name == "mail")
    assert not await storage.removals.erase(found.id)


async def test_jobs_whose_waits_time_out_soon_are_upcoming(storage):
    me = await worker(storage)
    for timeout in (60.0, 7200.0, None):
        await awaiting(storage, me, timeout=timeout)
    jobs, _ = (await storage.schedule.upcoming(HOUR))["default"]
    assert jobs == 1
