"""The steps that an attempt did are there for the next one, and nobody else writes them."""

import contextlib
from dataclasses import astuple
from datetime import timedelta

import pytest
from msgspec.structs import replace

from forge_jobs.errors import JobNotFound
from forge_jobs.model.job import KeyMode, Postponement, Reason, State
from forge_jobs.model.signal import NewSignal, NewWait, Recipient
from forge_jobs.model.step import MOST_RESULTS_AT_CLAIM, MOST_STEPS_AT_CLAIM, NewStep, StepSort
from forge_jobs.storage.interface.storage import Storage
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
    parked,
    running,
    state,
    worker,
)
from tests.storage.test_saved_states import again
from tests.storage.test_transactions import RolledBack

NOW = timedelta(0)
CHARGE, MAIL = NewStep(1, "charge", result=b'"receipt 7"'), NewStep(2, "mail")


async def names(storage: Storage, job_id: int) -> list[str]:
    return [step.name for step in await storage.steps.of_job(job_id)]


async def test_the_steps_of_a_job_are_read_in_their_order(storage):
    first = await running(storage, await worker(storage), codec="msgpack")
    assert await storage.steps.of_job(first.job_id) == []
    patch = NewStep(2, "new tax", StepSort.PATCH)

    added = [await storage.steps.add(first, step) for step in (CHARGE, patch, MAIL)]

    assert await storage.steps.of_job(first.job_id) == added
    assert [astuple(step)[:4] for step in added] == [
        (1, "charge", StepSort.STEP, 1),
        (2, "new tax", StepSort.PATCH, 1),
        (2, "mail", StepSort.STEP, 1),
    ]
    assert [(step.result, step.codec, step.until, step.is_over) for step in added] == [
        (b'"receipt 7"', "msgpack", None, True),
        (None, "msgpack", None, True),
        (None, "msgpack", None, True),
    ]
    assert (await storage.jobs.get(first.job_id)).steps == tuple(added)


async def test_a_claim_says_whether_its_job_may_have_steps(storage):
    me = await worker(storage)
    first, plain = await running(storage, me), await running(storage, me)
    await storage.steps.add(first, CHARGE)
    await storage.claims.postpone([failed(first, delay=NOW), failed(plain, delay=NOW)])

    links = {claimed.job_id: claimed.links for claimed in await claim(storage, me)}

    assert links == {first.job_id: 4, plain.job_id: None}


async def test_a_claim_brings_the_steps_that_were_done_and_the_signal_that_woke_its_job(storage):
    me = await worker(storage)
    first = await running(storage, me)
    assert first.steps is None
    await storage.steps.add(first, MAIL)
    await storage.steps.add(first, NewStep(1, "charge", result=b'"receipt 7"', serial=1))
    await storage.saved_states.save(first, b"[1]")
    await storage.signals.wait(first, NewWait(3, "approval", ("approved", "refused")))
    await storage.claims.postpone([parked(first, "approval")])
    bare = await running(storage, me)
    await storage.saved_states.save(bare, b"2")
    await storage.claims.postpone([failed(bare, delay=NOW)])
    await enqueue(storage)
    await storage.signals.send(Recipient(first.job_id), NewSignal("approved", b'"ada"'))

    claims = {claimed.job_id: claimed for claimed in await claim(storage, me)}

    woken = claims.pop(first.job_id)
    kept = await storage.steps.of_job(first.job_id)
    assert sorted(woken.steps, key=lambda step: step.number) == kept
    assert (woken.state, kept[2].signal, kept[2].result, kept[2].is_over) == (
        b"[1]",
        "approved",
        b'"ada"',
        True,
    )
    assert [(claimed.steps, claimed.state) for claimed in claims.values()] == [([], b"2"), (None, None)]


async def test_a_claim_brings_no_steps_that_are_many_or_large(storage):
    me = await worker(storage)
    half = b"s" * (MOST_RESULTS_AT_CLAIM // 2)
    many = [NewStep(number, f"step {number}") for number in range(1, MOST_STEPS_AT_CLAIM + 2)]
    done = [many[1:], many, [NewStep(1, "a", result=half), NewStep(2, "b", result=half)]]
    done.append([NewStep(1, "a", result=half), NewStep(2, "b", result=half + b"s")])
    jobs = [await running(storage, me) for _ in done]
    for claimed, steps in zip(jobs, done, strict=True):
        await storage.saved_states.save(claimed, b"1")
        for step in steps:
            await storage.steps.add(claimed, step)
    await storage.claims.postpone([failed(claimed, delay=NOW) for claimed in jobs])

    claims = {claimed.job_id: claimed for claimed in await claim(storage, me)}

    brought = [claims[claimed.job_id].steps for claimed in jobs]
    assert [steps if steps is None else len(steps) for steps in brought] == [64, None, 2, None]
    assert {claimed.state for claimed in claims.values()} == {b"1"}


async def test_a_step_that_is_there_stays_as_it_is(storage):
    me = await worker(storage)
    first = await running(storage, me)
    await storage.steps.add(first, CHARGE)
    second = await again(storage, me, first)

    kept = await storage.steps.add(second, replace(CHARGE, result=b"2"))

    assert kept is not None and (kept.attempt, kept.result) == (1, b'"receipt 7"')
    assert [kept] == await storage.steps.of_job(first.job_id)


async def test_a_sleep_lasts_until_the_databases_clock_is_there(storage, clock):
    first = await running(storage, await worker(storage))
    sleep = await storage.steps.add(first, NewStep(1, "cool off", StepSort.SLEEP, sleep=60.0))
    assert sleep is not None and sleep.until is not None
    assert (sleep.until - sleep.at, sleep.is_over) == (timedelta(seconds=60), False)

    await clock.advance(seconds=59)
    assert not (await storage.steps.of_job(first.job_id))[0].is_over
    await clock.advance(seconds=1)
    assert (await storage.steps.of_job(first.job_id))[0].is_over


async def asleep(storage, me, seconds=60.0, **facts):
    """A job sleeps; return its claim."""
    claimed = await running(storage, me, **facts)
    step = await storage.steps.add(claimed, NewStep(1, "cool off", StepSort.SLEEP, sleep=seconds))
    await storage.claims.postpone([Postponement(claimed, Reason.SLEEPING, run_at=step.until, counted=False)])
    return claimed


async def test_a_sleeping_job_is_scheduled_and_its_attempt_does_not_count(storage, clock):
    me = await worker(storage)
    first = await asleep(storage, me, max_attempts=1)
    sleeping = await storage.jobs.get(first.job_id)
    assert (sleeping.state, sleeping.reason, sleeping.attempt) == (State.SCHEDULED, Reason.SLEEPING, 0)

    await clock.advance(seconds=60)
    await storage.schedule.make_pending()

    [second] = await claim(storage, me)
    assert (second.job_id, second.attempt) == (first.job_id, 1)
    assert (await storage.steps.of_job(first.job_id))[0].is_over


async def test_a_sleeping_job_that_is_run_now_is_awake(storage):
    me = await worker(storage)
    first = await asleep(storage, me)

    await storage.jobs.run_now(first.job_id)

    assert (await storage.steps.of_job(first.job_id))[0].is_over
    assert await claim_ids(storage, me) == [first.job_id]


async def test_a_job_that_sleeps_past_the_moment_by_which_it_had_to_begin_goes_on(storage, clock):
    me = await worker(storage)
    await asleep(storage, me, start_by=timedelta(seconds=30))
    await clock.advance(seconds=60)
    assert (await storage.time_limits.expire(epoch=await leader(storage)))[0] == ()
    await storage.schedule.make_pending()
    assert len(await claim(storage, me)) == 1


async def test_an_attempt_that_was_taken_back_keeps_no_step(storage):
    me = await worker(storage)
    first = await running(storage, me)
    second = await again(storage, me, first)
    assert await storage.steps.add(first, CHARGE) is None
    assert await storage.steps.add(replace(second, worker_id=me + 1), CHARGE) is None
    await storage.claims.finish([done(second)])
    assert await storage.steps.add(second, CHARGE) is None
    assert await storage.steps.of_job(first.job_id) == []


async def test_a_step_in_a_callers_transaction_is_done_if_that_commits(storage, database):
    first = await running(storage, await worker(storage))
    async with database.transaction() as connection:
        await storage.steps.add(first, CHARGE, connection=connection)
        assert len(await storage.steps.of_job(first.job_id, connection=connection)) == 1
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            await storage.steps.add(first, MAIL, connection=connection)
            raise RolledBack

    assert await names(storage, first.job_id) == ["charge"]


async def test_the_steps_of_a_dead_job_that_is_retried_are_done(storage):
    me = await worker(storage)
    first = await running(storage, me)
    await storage.steps.add(first, CHARGE)
    await storage.claims.finish([dead(first)])

    await storage.jobs.retry(first.job_id)

    [anew] = await claim(storage, me)
    assert (anew.attempt, await names(storage, anew.job_id)) == (1, ["charge"])


async def test_a_job_that_is_replaced_has_no_steps(storage):
    first = await running(storage, await worker(storage), key="k")
    await storage.steps.add(first, CHARGE)
    await storage.claims.postpone([failed(first)])

    replaced = await enqueue(storage, key="k", key_mode=KeyMode.REPLACE)

    assert (replaced, await names(storage, replaced)) == (first.job_id, [])


async def test_a_rerun_begins_without_steps_or_with_those_before_one(storage):
    me = await worker(storage)
    first = await running(storage, me)
    for step in (CHARGE, MAIL, NewStep(3, "ship")):
        await storage.steps.add(first, step)
    await storage.claims.finish([dead(first)])

    anew = await enqueue(storage, rerun_of=first.job_id)
    halfway = await storage.steps.rerun(job(rerun_of=first.job_id), before=3)
    from_the_first = await storage.steps.rerun(job(rerun_of=first.job_id), before=1)

    assert await names(storage, anew) == await names(storage, from_the_first.id) == []
    assert await names(storage, halfway.id) == ["charge", "mail"]
    linked = {claimed.job_id: claimed.links for claimed in await claim(storage, me)}
    assert linked == {anew: None, halfway.id: 4, from_the_first.id: None}


async def test_a_rerun_of_a_job_that_is_gone_meanwhile_does_not_begin_at_the_first_step(storage):
    first = await running(storage, await worker(storage))
    await storage.steps.add(first, CHARGE)
    await storage.claims.finish([dead(first)])
    await storage.jobs.delete(first.job_id)

    with pytest.raises(JobNotFound):
        await storage.steps.rerun(job(rerun_of=first.job_id), before=2)

    assert (await storage.jobs.counts())[0].pending == 0


async def test_a_rerun_whose_key_a_living_job_has_gives_that_one_no_steps(storage):
    me = await worker(storage)
    first = await running(storage, me, key="k")
    await storage.steps.add(first, CHARGE)
    await storage.claims.finish([dead(first)])
    living = await enqueue(storage, key="k")

    answer = await storage.steps.rerun(job(key="k", rerun_of=first.job_id), before=2)

    assert (answer.id, answer.duplicate) == (living, True)
    assert await names(storage, living) == []


async def test_steps_go_with_their_job(storage, database, clock):
    me = await worker(storage)
    await storage.queues.set("brief", {"done_retention": NOW, "dead_retention": NOW})
    deleted, swept, removed = [await running(storage, me, key=key) for key in (None, None, "k")]
    dropped, cancelled = [await running(storage, me, queue="brief") for _ in range(2)]
    for claimed in (deleted, swept, removed, dropped, cancelled):
        await storage.steps.add(claimed, CHARGE)
    await storage.claims.finish([done(deleted), done(swept), done(dropped, keep=False)])
    await storage.claims.postpone([failed(removed), failed(cancelled)])

    await storage.jobs.delete(deleted.job_id)
    await storage.keys.remove("work", "k")
    await storage.jobs.cancel(cancelled.job_id)
    await clock.advance(days=8)
    await storage.history.sweep(epoch=await leader(storage))

    assert await database.rows("SELECT job_id FROM step") == []


async def test_a_job_with_steps_ends_and_waits_as_others_do(storage):
    me = await worker(storage)
    first = await running(storage, me)
    await storage.steps.add(first, CHARGE)
    second = await again(storage, me, first)
    await storage.claims.hand_back([second])
    assert await claim_ids(storage, me) == [first.job_id]
    assert await state(storage, await ended(storage, me)) is State.DONE
    await storage.claims.finish([done(second)])
    assert await state(storage, first.job_id) is State.DONE
