"""A job may have to be begun by a moment, or else it expires; and to have ended by a moment, its deadline."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import KeyMode, NewJob, Postponement, Reason, State
from forge_jobs.model.match import Move
from forge_jobs.system.uptime import uptime
from tests.storage.factories import (
    claim,
    cron,
    done,
    enqueue,
    enqueue_many,
    failed,
    job,
    leader,
    lost_claims,
    move_all,
    state,
    worker,
)

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


async def expire(storage):
    """Return the jobs that the leader ends, and how long it is until it looks again."""
    return await storage.time_limits.expire(epoch=await leader_epoch(storage))


async def leader_epoch(storage):
    found = await storage.leadership.get()
    return await leader(storage) if found is None else found.epoch


async def expired(storage):
    """Return the ids of the jobs that the leader ends."""
    return [one.job_id for one in (await expire(storage))[0]]


async def test_a_waiting_job_that_is_not_begun_in_time_is_expired(storage, clock):
    now = await clock.freeze()
    wanted = await enqueue(storage, start_by=MINUTE)
    assert (await storage.jobs.get(wanted)).start_by == now + MINUTE
    assert await expire(storage) == ((), MINUTE)

    await clock.advance(seconds=61)
    [ended], next_in = await expire(storage)

    error = f"expired: it was not begun by {now + MINUTE:%Y-%m-%d %H:%M:%S} UTC"
    assert (ended.job_id, ended.queue, ended.kind, ended.expired, ended.error) == (
        wanted,
        "default",
        "work",
        True,
        error,
    )
    assert next_in is None
    found = await storage.jobs.get(wanted)
    assert (found.state, found.error, found.attempt, found.worker_id) == (State.EXPIRED, error, 0, None)
    [counts] = await storage.jobs.counts()
    assert (counts.pending, counts.dead, counts.done, counts.expired) == (0, 0, 0, 1)


async def test_a_waiting_job_whose_deadline_has_come_is_dead(storage, clock):
    now = await clock.freeze()
    wanted = await enqueue(storage, deadline=now + MINUTE)

    await clock.advance(seconds=60)

    assert await expired(storage) == [wanted]
    found = await storage.jobs.get(wanted)
    assert found.state is State.DEAD
    assert found.error == f"overdue: it had not ended by {now + MINUTE:%Y-%m-%d %H:%M:%S} UTC"


async def test_how_long_a_job_may_wait_counts_from_when_it_is_due(storage, clock):
    now = await clock.freeze()
    later = await enqueue(storage, start_by=MINUTE, deadline=2 * MINUTE, delay=HOUR)
    planned = await enqueue(storage, start_by=MINUTE, run_at=now + HOUR)

    for one in (later, planned):
        assert (await storage.jobs.get(one)).start_by == now + HOUR + MINUTE
    assert (await storage.jobs.get(later)).deadline == now + HOUR + 2 * MINUTE


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"key": "k"},
        {"key": "k", "key_mode": KeyMode.REPLACE},
        {"groups": encoded([Group("a")])},
        {"groups": encoded([Group("a")]), "key": "k", "key_mode": KeyMode.REPLACE},
        {"delay": timedelta(hours=2)},
        {"queue": "mail", "priority": 3},
    ],
)
@pytest.mark.parametrize("how", ["one", "many", "bulk", "transaction"])
async def test_every_way_to_enqueue_knows_time_limits(storage, clock, database, facts, how):
    now = await clock.freeze()
    await storage.queues.ensure(["mail"])
    wanted = job(start_by=now + 3 * HOUR, deadline=4 * HOUR, **facts)
    due = facts.get("delay", timedelta(0))
    if how == "one":
        answer = await storage.jobs.enqueue(wanted)
    elif how == "transaction":
        async with database.transaction() as connection:
            answer = await storage.jobs.enqueue(wanted, connection=connection)
    else:
        jobs = [job()] * (300 if how == "bulk" else 1) + [wanted]
        answer = (await storage.jobs.enqueue_many(jobs))[-1]

    found = await storage.jobs.get(answer.id)
    moment = now + due + 4 * HOUR
    assert found.start_by == now + 3 * HOUR
    assert abs(found.deadline - moment) < timedelta(seconds=1)
    await clock.advance(hours=3)
    assert answer.id in await expired(storage)
    assert await state(storage, answer.id) is State.EXPIRED


async def test_a_job_in_whichever_state_it_waits_expires_and_leaves_nothing_behind(storage, clock):
    me = await worker(storage)
    group = encoded([Group("a")])
    pending = await enqueue(storage, start_by=MINUTE, key="k", groups=group)
    blocked = await enqueue(storage, start_by=MINUTE, groups=group)
    scheduled = await enqueue(storage, start_by=clock.now() + MINUTE, delay=HOUR)
    next_one = await enqueue(storage, groups=group)
    promoted = await enqueue(storage, start_by=MINUTE, delay=timedelta(seconds=1))
    await clock.advance(seconds=2)
    await storage.schedule.make_pending()
    assert await state(storage, promoted) is State.PENDING

    await clock.advance(minutes=2)

    assert sorted(await expired(storage)) == sorted([pending, blocked, scheduled, promoted])
    assert [one.job_id for one in await claim(storage, me)] == [next_one]
    assert (await storage.jobs.enqueue(job(key="k"))).is_new


async def test_a_worker_learns_of_the_time_limits_with_the_claim(storage, clock):
    now = await clock.freeze()
    me = await worker(storage)
    await enqueue(storage)
    await enqueue(storage, start_by=MINUTE, deadline=HOUR)

    plain, limited = await claim(storage, me)

    assert plain.limits is None
    limits = limited.limits
    assert limits is not None
    assert (limits.start_by, limits.deadline) == ((now + MINUTE).timestamp(), (now + HOUR).timestamp())
    assert limits.ahead == pytest.approx(now.timestamp() - uptime(), abs=60)
    assert not limits.is_over(now.timestamp())
    assert limits.is_over((now + MINUTE).timestamp())


async def test_a_claimed_job_that_is_handed_back_too_late_is_expired(storage, clock):
    me = await worker(storage)
    wanted, other = await enqueue(storage, start_by=MINUTE), await enqueue(storage)
    claims = await claim(storage, me)
    await clock.advance(minutes=2)
    assert await expired(storage) == []

    assert await storage.claims.hand_back(claims) == []

    found = await storage.jobs.get(wanted)
    assert (found.state, found.attempt, found.worker_id) == (State.EXPIRED, 0, None)
    assert await state(storage, other) is State.PENDING
    assert [(one.expired, one.ended_by is not None) for one in claims] == [(True, True), (False, False)]


@pytest.mark.parametrize("limit", ["start_by", "deadline"])
@pytest.mark.parametrize("how", ["handed back", "throttled"])
async def test_what_ends_since_it_comes_back_too_late_counts_no_attempt_unless_it_was_begun(
    storage, clock, limit, how
):
    me = await worker(storage)
    wanted = await enqueue(storage, **{limit: MINUTE})
    [claimed] = await claim(storage, me)
    await clock.advance(minutes=2)

    if how == "handed back":
        await storage.claims.hand_back([claimed])
    else:
        await storage.claims.postpone([Postponement(claimed, Reason.THROTTLED, HOUR, counted=False)])

    found = await storage.jobs.get(wanted)
    is_begun = how == "throttled" and limit == "deadline"
    assert found.state is (State.EXPIRED if limit == "start_by" else State.DEAD)
    assert (found.attempt, found.worker_id) == ((1, me) if is_begun else (0, None))
    assert (found.started_at is not None) is is_begun


async def test_a_claimed_job_that_is_handed_back_in_time_may_expire_later(storage, clock):
    me = await worker(storage)
    wanted = await enqueue(storage, start_by=MINUTE)
    await storage.claims.hand_back(await claim(storage, me))
    assert await state(storage, wanted) is State.PENDING

    await clock.advance(minutes=2)

    assert await expired(storage) == [wanted]


async def test_a_job_that_was_begun_does_not_expire_any_more(storage, clock):
    me = await worker(storage)
    wanted = await enqueue(storage, start_by=MINUTE)
    await storage.claims.postpone([failed(one) for one in await claim(storage, me)])

    await clock.advance(minutes=2)
    assert await expired(storage) == []
    await storage.schedule.make_pending()
    [again] = await claim(storage, me)

    assert (again.job_id, again.attempt) == (wanted, 2)
    assert again.limits is None


@pytest.mark.parametrize("reason", [Reason.RETRY, Reason.THROTTLED, Reason.RESCHEDULED])
async def test_no_attempt_is_scheduled_that_would_come_after_the_deadline(storage, clock, reason):
    await clock.freeze()
    me = await worker(storage)
    wanted = await enqueue(storage, deadline=MINUTE, key="k")
    [running] = await claim(storage, me)

    error = "it broke" if reason is Reason.RETRY else None
    late = Postponement(running, reason, MINUTE, error=error)
    assert await storage.claims.postpone([late]) == []

    found = await storage.jobs.get(wanted)
    assert (found.state, found.error[:8]) == (State.DEAD, "overdue:")
    assert [one.error for one in found.failures] == ([error] if error else [])
    assert running.ended_by == found.error and not running.expired
    assert (await storage.jobs.enqueue(job(key="k"))).is_new


async def test_a_retry_before_the_deadline_waits(storage, clock):
    me = await worker(storage)
    wanted = await enqueue(storage, deadline=MINUTE)

    await storage.claims.postpone([failed(one, delay=MINUTE / 2) for one in await claim(storage, me)])

    assert await state(storage, wanted) is State.RETRYING
    await clock.advance(minutes=2)
    assert await expired(storage) == [wanted]
    assert await state(storage, wanted) is State.DEAD


async def test_a_job_of_a_lost_worker_is_not_tried_after_its_deadline(storage, clock):
    me = await worker(storage)
    wanted = await enqueue(storage, deadline=MINUTE)
    await claim(storage, me)
    await clock.advance(minutes=2)

    [lost] = await lost_claims(storage)
    await storage.claims.postpone([failed(lost, "worker lost")])

    assert await state(storage, wanted) is State.DEAD


async def test_a_running_job_is_left_to_its_worker_and_its_result_counts(storage, clock):
    await clock.freeze()
    me = await worker(storage)
    wanted = await enqueue(storage, start_by=MINUTE, deadline=2 * MINUTE)
    claims = await claim(storage, me)
    await clock.advance(minutes=3)
    ended, next_in = await expire(storage)
    assert (list(ended), next_in) == ([], MINUTE)

    await storage.claims.finish([done(one) for one in claims])

    assert await state(storage, wanted) is State.DONE
    await clock.advance(minutes=3)
    assert await expire(storage) == ((), None)


async def test_the_leader_looks_again_soon_after_a_job_that_was_not_begun_and_at_the_deadline_after_others(
    storage, clock
):
    await clock.freeze()
    me = await worker(storage)
    wanted = await enqueue(storage, start_by=MINUTE, deadline=HOUR)
    [claimed] = await claim(storage, me)
    await clock.advance(minutes=2)
    assert await expire(storage) == ([], MINUTE)

    await storage.claims.postpone([failed(claimed)])

    assert (await storage.jobs.get(wanted)).start_by is None
    assert await expire(storage) == ((), HOUR - 2 * MINUTE)


async def test_the_leader_does_not_look_after_jobs_that_were_begun_and_have_no_deadline(storage, clock):
    me = await worker(storage)
    await enqueue_many(storage, 3, start_by=MINUTE)
    await storage.claims.postpone([failed(one) for one in await claim(storage, me)])
    await clock.advance(minutes=2)

    assert await expire(storage) == ((), None)


async def test_running_jobs_keep_the_leader_from_no_waiting_one(storage, clock):
    me = await worker(storage)
    await enqueue_many(storage, 5, start_by=MINUTE)
    await claim(storage, me)
    wanted = await enqueue(storage, start_by=2 * MINUTE)
    await clock.advance(minutes=3)
    epoch = await leader_epoch(storage)
    seen = []
    for _ in range(5):
        seen += (await storage.time_limits.expire(epoch=epoch, limit=2))[0]

    assert [one.job_id for one in seen] == [wanted]


async def test_many_jobs_expire_a_batch_at_a_time(storage, clock):
    ids = await enqueue_many(storage, 25, start_by=MINUTE)
    await clock.advance(minutes=2)
    epoch = await leader_epoch(storage)

    seen = [(await storage.time_limits.expire(epoch=epoch, limit=10))[0] for _ in range(4)]

    assert [len(one) for one in seen] == [10, 10, 5, 0]
    assert sorted(one.job_id for part in seen for one in part) == ids


async def test_only_the_leader_ends_jobs(storage, clock):
    wanted = await enqueue(storage, start_by=MINUTE)
    epoch = await leader_epoch(storage)
    await clock.advance(minutes=2)

    ended, _ = await storage.time_limits.expire(epoch=epoch - 1)
    assert list(ended) == []
    assert await state(storage, wanted) is State.PENDING


async def test_an_expired_job_is_tried_again_by_hand_without_time_limits(storage, clock):
    me = await worker(storage)
    wanted = await enqueue(storage, start_by=MINUTE, key="k")
    await clock.advance(minutes=2)
    await expired(storage)

    assert await storage.jobs.retry(wanted)

    assert await expired(storage) == []
    [running] = await claim(storage, me)
    assert (running.job_id, running.attempt) == (wanted, 1)
    assert running.limits is None


async def test_expired_jobs_are_listed_retried_deleted_and_swept_like_dead_ones(storage, clock):
    ids = await enqueue_many(storage, 2, start_by=MINUTE)
    ids.append(await enqueue(storage, "play", start_by=MINUTE))
    await clock.advance(minutes=2)
    await expired(storage)

    assert [one.id for one in await storage.jobs.find(state=State.EXPIRED)] == ids[::-1]
    assert await storage.jobs.find(state=State.DEAD) == []
    assert await storage.jobs.count(State.EXPIRED) == 3
    await storage.jobs.delete(ids[0])
    async for _ in move_all(storage, Move.RETRY, State.EXPIRED, kind="work"):
        pass
    assert await state(storage, ids[1]) is State.PENDING
    async for _ in move_all(storage, Move.DELETE, State.PENDING):
        pass
    await clock.advance(days=31)
    assert await storage.history.sweep(epoch=await leader_epoch(storage)) == 1
    assert await storage.jobs.find() == []


async def test_a_replaced_job_has_the_time_limits_that_are_said_last(storage, clock):
    now = await clock.freeze()
    wanted = await enqueue(storage, key="k", start_by=MINUTE)

    await storage.jobs.enqueue(job(key="k", key_mode=KeyMode.REPLACE, deadline=HOUR))
    found = await storage.jobs.get(wanted)
    assert (found.start_by, found.deadline) == (None, now + HOUR)

    await storage.jobs.enqueue(job(key="k", key_mode=KeyMode.REPLACE))
    found = await storage.jobs.get(wanted)
    assert (found.start_by, found.deadline) == (None, None)


async def test_a_replaced_job_that_keeps_its_time_has_limits_from_then(storage, clock):
    now = await clock.freeze()
    wanted = await enqueue(storage, key="k", delay=HOUR)

    await storage.jobs.enqueue(
        job(key="k", key_mode=KeyMode.PRESERVE_RUN_AT, start_by=MINUTE, deadline=2 * MINUTE)
    )

    found = await storage.jobs.get(wanted)
    assert (found.run_at, found.start_by, found.deadline) == (
        now + HOUR,
        now + HOUR + MINUTE,
        now + HOUR + 2 * MINUTE,
    )
    await clock.advance(minutes=2)
    assert await expired(storage) == []


@pytest.mark.parametrize("how", ["one", "many"])
async def test_a_job_that_is_put_off_for_as_long_as_it_may_be_has_limits_from_then(storage, clock, how):
    now = await clock.freeze()
    wanted = await enqueue(storage, key="k", delay=MINUTE)

    later = job(key="k", key_mode=KeyMode.PUT_OFF, delay=HOUR, max_wait=2 * MINUTE, start_by=MINUTE)
    await (storage.jobs.enqueue(later) if how == "one" else storage.jobs.enqueue_many([job(), later]))

    found = await storage.jobs.get(wanted)
    assert (found.run_at, found.start_by) == (now + 2 * MINUTE, now + 3 * MINUTE)


async def test_a_moment_as_a_limit_stays_when_the_job_keeps_its_time(storage, clock):
    now = await clock.freeze()
    wanted = await enqueue(storage, key="k", delay=HOUR)

    await storage.jobs.enqueue(
        job(key="k", key_mode=KeyMode.PRESERVE_RUN_AT, start_by=now + 2 * HOUR, deadline=3 * HOUR)
    )

    found = await storage.jobs.get(wanted)
    assert (found.start_by, found.deadline) == (now + 2 * HOUR, now + 4 * HOUR)


async def test_a_pending_job_that_keeps_its_place_has_limits_from_now(storage, clock):
    wanted = await enqueue(storage, key="k")
    await clock.advance(hours=1)
    now = clock.now()

    await storage.jobs.enqueue(job(key="k", key_mode=KeyMode.PRESERVE_RUN_AT, start_by=MINUTE))

    found = await storage.jobs.get(wanted)
    assert abs(found.start_by - (now + MINUTE)) < timedelta(seconds=1)


@pytest.mark.parametrize("facts", [{}, {"key": "k"}, {"key": "k", "key_mode": KeyMode.REPLACE}])
@pytest.mark.parametrize("how", ["one", "bulk"])
async def test_limits_of_a_job_that_was_due_in_the_past_count_from_now(storage, clock, facts, how):
    now = await clock.freeze()
    late = job(run_at=now - HOUR, start_by=MINUTE, deadline=2 * MINUTE, **facts)
    jobs = [late] if how == "one" else [job()] * 300 + [late]

    answer = (await storage.jobs.enqueue_many(jobs))[-1]

    found = await storage.jobs.get(answer.id)
    assert abs(found.start_by - (now + MINUTE)) < timedelta(seconds=1)
    assert abs(found.deadline - (now + 2 * MINUTE)) < timedelta(seconds=1)


@pytest.mark.parametrize("end", ["cancel", "delete", "remove"])
async def test_whoever_ends_a_job_ends_its_time_limits(storage, clock, end):
    wanted = await enqueue(storage, start_by=MINUTE, key="k")
    if end == "remove":
        await storage.keys.remove("work", "k")
    else:
        await getattr(storage.jobs, end)(wanted)

    assert await expire(storage) == ((), None)


async def test_a_queue_that_keeps_nothing_forgets_expired_jobs(storage, clock):
    await storage.queues.set("default", {"dead_retention": timedelta(0)})
    await enqueue(storage, start_by=MINUTE)
    await clock.advance(minutes=2)

    assert len(await expired(storage)) == 1
    assert await storage.jobs.find() == []


async def test_a_cron_gives_its_jobs_time_limits(storage, clock):
    now = await clock.freeze()
    await storage.crons.set(cron(start_by=MINUTE, deadline=HOUR))
    found = await storage.crons.get("nightly")
    assert (found.start_by, found.deadline) == (MINUTE, HOUR)

    answer = await storage.crons.trigger("nightly")

    fired = await storage.jobs.get(answer.id)
    assert (fired.start_by, fired.deadline) == (now + MINUTE, now + HOUR)


NOBODY = 10**15  # the id of no job


async def test_an_audit_finds_time_limits_of_jobs_that_have_ended_and_mends_them(storage, database, clock):
    wanted = await enqueue(storage)
    micros = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1_000_000)
    moment = micros if database.kind == "sqlite" else "now()"
    for job_id in (wanted, NOBODY):
        await database.run(f"INSERT INTO time_limit (job_id, look_at) VALUES ({job_id}, {moment})")
    await storage.jobs.cancel(wanted)
    await database.run(f"INSERT INTO time_limit (job_id, look_at) VALUES ({wanted}, {moment})")

    found = [finding async for look in storage.audit.jobs() for finding in look.findings]
    assert sorted(finding.job_id for finding in found) == [wanted, NOBODY]
    async for _ in storage.audit.jobs(repair=True):
        pass
    assert [finding async for look in storage.audit.jobs() for finding in look.findings] == []


@pytest.mark.parametrize("seed", range(2))
async def test_each_job_expires_or_runs_and_never_both_while_many_race(storage, another, clock, seed):
    """Jobs expire at every moment of their lives."""
    epoch = await leader_epoch(storage)
    me = await worker(storage)
    group = encoded([Group("a", limit=3)])
    ids = [
        answer.id
        for answer in await storage.jobs.enqueue_many(
            [
                NewJob(
                    "work", groups=group if number % 3 == seed else None, start_by=timedelta(seconds=number)
                )
                for number in range(1, 41)
            ]
        )
    ]
    second = await another()
    other = await worker(second)
    begun: list[int] = []
    ended: list[int] = []

    async def run(storage, worker_id, *, gives_back):
        claims = await claim(storage, worker_id, limit=2)
        now = clock.now().timestamp()
        in_time = [
            one for one in claims if not gives_back and one.limits is not None and not one.limits.is_over(now)
        ]
        begun.extend(one.job_id for one in in_time)
        await storage.claims.finish([done(one) for one in in_time])
        back = [one for one in claims if one not in in_time]
        await storage.claims.hand_back(back)
        ended.extend(one.job_id for one in back if one.expired)

    async def end(storage):
        ended.extend(one.job_id for one in (await storage.time_limits.expire(epoch=epoch, limit=3))[0])

    for number in range(45):
        await clock.advance(seconds=1)
        await asyncio.gather(
            run(storage, me, gives_back=number % 2 == seed),
            run(second, other, gives_back=True),
            end(storage),
            end(second),
        )

    await clock.advance(seconds=2)
    while expired_now := await expired(storage):
        ended += expired_now
    [counts] = await storage.jobs.counts()
    assert begun and (counts.done, counts.expired) == (len(begun), len(ids) - len(begun))
    assert sorted(begun + ended) == ids


@pytest.mark.parametrize("limit", ["start_by", "deadline"])
async def test_a_job_whose_time_was_over_while_it_was_scheduled_is_not_made_pending(storage, clock, limit):
    await clock.freeze()
    late = await enqueue(storage, delay=MINUTE, **{limit: clock.now() + HOUR})
    in_time = await enqueue(storage, delay=MINUTE, **{limit: clock.now() + 3 * HOUR})
    soon = await enqueue(storage, delay=3 * HOUR)
    await clock.advance(hours=2)

    assert await storage.schedule.make_pending() == (1, HOUR), "and nobody looks for it in vain"

    assert await state(storage, late) is State.SCHEDULED
    assert await state(storage, in_time) is State.PENDING
    assert await expired(storage) == [late]
    assert await state(storage, soon) is State.SCHEDULED


async def test_a_job_whose_time_was_over_while_it_was_scheduled_takes_no_turn(storage, clock):
    await clock.freeze()
    me = await worker(storage)
    await enqueue(storage, delay=MINUTE, start_by=clock.now() + HOUR, tenant="ada")
    await clock.advance(hours=2)
    await storage.schedule.make_pending()
    ada, bob = await enqueue(storage, tenant="ada"), await enqueue(storage, tenant="bob")

    assert [one.job_id for one in await claim(storage, me)] == [ada, bob]


async def test_a_job_whose_time_was_over_while_it_was_scheduled_cancels_no_other_of_its_group(storage, clock):
    await clock.freeze()
    await worker(storage)
    group = encoded([Group("a", overflow="cancel_running")])
    late = await enqueue(storage, delay=MINUTE, start_by=clock.now() + HOUR, groups=group)
    await clock.advance(hours=2)
    other = await enqueue(storage, groups=group)

    await storage.schedule.make_pending()

    assert await state(storage, other) is State.PENDING
    assert await expired(storage) == [late]
