"""Of the jobs of a group only so many at once are pending or in progress; the others are blocked."""

from datetime import timedelta

import pytest

from forge_jobs.errors import JobNotFound, UnknownGroup, WrongState
from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import Hold, KeyMode, Postponement, Reason, Removed, State
from forge_jobs.model.match import Move
from forge_jobs.model.run import Outcome
from tests.storage.factories import (
    claim,
    dead,
    done,
    ended,
    enqueue,
    failed,
    job,
    leader,
    move_all,
    state,
    worker,
)


def of(*groups, **facts):
    """A job's facts with these groups."""
    return {"groups": encoded(Group(one) if isinstance(one, str) else one for one in groups), **facts}


async def test_the_first_job_of_a_group_is_pending_and_the_others_are_blocked(storage):
    ids = [await enqueue(storage, **of("a")) for _ in range(3)]

    assert [await state(storage, one) for one in ids] == [State.PENDING, State.BLOCKED, State.BLOCKED]
    [counts] = await storage.jobs.counts()
    assert (counts.pending, counts.blocked) == (1, 2)


async def test_as_many_jobs_are_pending_as_the_limit_says(storage):
    ids = [await enqueue(storage, **of(Group("a", limit=2))) for _ in range(3)]

    assert [await state(storage, one) for one in ids] == [State.PENDING, State.PENDING, State.BLOCKED]


async def test_a_group_spans_queues_and_kinds(storage):
    await storage.queues.ensure(["mail"])
    await enqueue(storage, "one", **of("a"))

    assert await state(storage, await enqueue(storage, "other", **of("a", queue="mail"))) is State.BLOCKED


async def test_groups_do_not_wait_for_each_other(storage):
    await enqueue(storage, **of("a"))

    assert await state(storage, await enqueue(storage, **of("b"))) is State.PENDING
    assert await state(storage, await enqueue(storage)) is State.PENDING


@pytest.mark.parametrize("end", [done, dead])
async def test_a_job_that_ends_hands_its_place_to_the_next(storage, end):
    me = await worker(storage)
    ids = [await enqueue(storage, **of("a")) for _ in range(3)]
    [running] = await claim(storage, me)

    assert await storage.claims.finish([end(running)]) == []

    assert [await state(storage, one) for one in ids[1:]] == [State.PENDING, State.BLOCKED]


async def test_a_plain_job_and_one_of_a_group_end_in_one_batch(storage):
    me = await worker(storage)
    await enqueue(storage)
    await enqueue(storage, key="k")
    await enqueue(storage, **of("a"))
    blocked = await enqueue(storage, **of("a"))

    assert await storage.claims.finish([done(one) for one in await claim(storage, me)]) == []

    assert await state(storage, blocked) is State.PENDING


async def test_blocked_jobs_get_places_by_priority_and_then_in_their_order(storage):
    me = await worker(storage)
    first = await enqueue(storage, **of("a"))
    late, later = await enqueue(storage, **of("a", priority=5)), await enqueue(storage, **of("a"))
    urgent = await enqueue(storage, **of("a", priority=-5))
    order = []

    for _ in range(4):
        [running] = await claim(storage, me)
        order.append(running.job_id)
        await storage.claims.finish([done(running)])

    assert order == [first, urgent, later, late]


async def test_many_priorities_and_many_ends_keep_the_order(storage):
    me = await worker(storage)
    ids = [(number % 3, await enqueue(storage, **of("a", priority=number % 3))) for number in range(60)]
    order = []

    for _ in range(60):
        [running] = await claim(storage, me)
        order.append((running.priority, running.job_id))
        await storage.claims.finish([done(running)])

    assert order == [ids[0], *sorted(ids[1:])]


async def test_a_job_that_waits_for_its_retry_gives_its_place_up(storage, clock):
    me = await worker(storage)
    await clock.freeze()
    first, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))
    [running] = await claim(storage, me)

    await storage.claims.postpone([failed(running)])
    assert (await state(storage, first), await state(storage, second)) == (State.RETRYING, State.PENDING)

    await clock.advance(seconds=11)
    assert (await storage.schedule.make_pending())[0] == 1
    assert (await state(storage, first), await state(storage, second)) == (State.BLOCKED, State.PENDING)
    assert (await storage.jobs.get(first)).attempt == 1


async def test_a_job_that_is_tried_again_at_once_stands_behind_those_that_wait(storage):
    me = await worker(storage)
    first, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))

    await storage.claims.postpone([failed(one, delay=timedelta(0)) for one in await claim(storage, me)])
    await storage.schedule.make_pending()

    assert (await state(storage, first), await state(storage, second)) == (State.BLOCKED, State.PENDING)


async def test_a_job_that_is_handed_back_keeps_its_place(storage):
    me = await worker(storage)
    first, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))

    await storage.claims.hand_back(await claim(storage, me))

    assert (await state(storage, first), await state(storage, second)) == (State.PENDING, State.BLOCKED)


@pytest.mark.parametrize("write", ["postpone", "hand_back"])
async def test_a_running_job_that_a_user_cancelled_gives_its_place_up_when_its_worker_returns_it(
    storage, write
):
    me = await worker(storage)
    first, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))
    claims = await claim(storage, me)
    await storage.jobs.cancel(first)

    await (
        storage.claims.hand_back(claims)
        if write == "hand_back"
        else storage.claims.postpone([failed(one) for one in claims])
    )

    assert (await state(storage, first), await state(storage, second)) == (State.DEAD, State.PENDING)


@pytest.mark.parametrize("move", ["cancel", "delete"])
async def test_a_pending_job_that_goes_hands_its_place_to_the_next(storage, move):
    first, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))

    await getattr(storage.jobs, move)(first)

    assert await state(storage, second) is State.PENDING


@pytest.mark.parametrize("move", ["cancel", "delete"])
async def test_a_blocked_job_that_goes_had_no_place(storage, move):
    ids = [await enqueue(storage, **of("a")) for _ in range(3)]

    await getattr(storage.jobs, move)(ids[1])

    assert [await state(storage, one) for one in (ids[0], ids[2])] == [State.PENDING, State.BLOCKED]


async def test_a_blocked_job_cannot_be_retried_or_run_now(storage):
    await enqueue(storage, **of("a"))
    blocked = await enqueue(storage, **of("a"))

    with pytest.raises(WrongState):
        await storage.jobs.retry(blocked)
    assert await storage.jobs.run_now(blocked) is False


async def test_a_dead_job_that_is_retried_joins_its_group_again(storage):
    first, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))
    await storage.jobs.cancel(first)

    assert await storage.jobs.retry(first)

    assert (await state(storage, first), await state(storage, second)) == (State.BLOCKED, State.PENDING)


async def test_a_scheduled_job_joins_its_group_when_it_is_due(storage, clock):
    await clock.freeze()
    delayed = await enqueue(storage, **of("a", delay=timedelta(seconds=5)))
    first = await enqueue(storage, **of("a"))
    assert (await state(storage, delayed), await state(storage, first)) == (State.SCHEDULED, State.PENDING)

    assert await storage.jobs.run_now(delayed)

    assert await state(storage, delayed) is State.BLOCKED


async def test_many_jobs_are_enqueued_with_their_groups(storage):
    me = await worker(storage)
    answers = await storage.jobs.enqueue_many(
        [job(**of(f"g{number % 2}")) for number in range(500)] + [job()]
    )

    [counts] = await storage.jobs.counts()
    assert (len(answers), counts.pending, counts.blocked, counts.scheduled) == (501, 3, 498, 0)
    ended = 0
    while claims := await claim(storage, me):
        ended += len(claims)
        await storage.claims.finish([done(one) for one in claims])
    assert ended == 501


async def test_jobs_that_join_their_groups_leave_others_that_are_due_to_the_workers(storage, clock):
    await clock.freeze()
    other = await enqueue(storage, delay=timedelta(seconds=5))
    delayed = await enqueue(storage, **of("b", delay=timedelta(days=1)))
    await clock.advance(seconds=6)

    answers = await storage.jobs.enqueue_many([job(**of("a"))] * 500)
    await storage.jobs.run_now(delayed)

    assert await state(storage, answers[0].id) is State.PENDING
    assert await state(storage, answers[-1].id) is State.BLOCKED
    assert await state(storage, delayed) is State.PENDING
    assert await state(storage, other) is State.SCHEDULED


async def test_the_limit_that_was_said_last_holds(storage):
    ids = [await enqueue(storage, **of("a")) for _ in range(3)]

    more = await enqueue(storage, **of(Group("a", limit=3)))

    assert [await state(storage, one) for one in ids] == [State.PENDING] * 3
    assert await state(storage, more) is State.BLOCKED
    await enqueue(storage, **of("a"))
    [group] = await storage.groups.all()
    assert (group.name, group.limit, group.occupants, group.blocked) == ("a", 3, 3, 2)


async def test_the_limit_that_people_set_is_stronger_than_what_jobs_say(storage):
    me = await worker(storage)
    ids = [await enqueue(storage, **of(Group("a", limit=1))) for _ in range(3)]

    await storage.groups.set("a", 2)
    await enqueue(storage, **of(Group("a", limit=1)))

    assert [await state(storage, one) for one in ids] == [State.PENDING, State.PENDING, State.BLOCKED]
    await storage.groups.set("a", None)
    assert [await state(storage, one) for one in ids] == [State.PENDING, State.PENDING, State.BLOCKED]
    running = await claim(storage, me)
    await storage.claims.finish([done(running[0])])
    assert await state(storage, ids[2]) is State.BLOCKED
    await storage.claims.finish([done(running[1])])
    assert await state(storage, ids[2]) is State.PENDING


async def test_a_group_whose_limit_nobody_has_said_has_that_of_its_jobs_queue(storage):
    await storage.queues.set("default", {"group_limit": 2})

    ids = [await enqueue(storage, **of("a")) for _ in range(3)]

    assert [await state(storage, one) for one in ids] == [State.PENDING, State.PENDING, State.BLOCKED]
    await storage.queues.set("default", {"group_limit": 3})
    last = await enqueue(storage, **of("a"))
    assert [await state(storage, one) for one in (ids[2], last)] == [State.PENDING, State.BLOCKED]
    [group] = await storage.groups.all()
    assert (group.limit, group.set_limit) == (3, None)


@pytest.mark.parametrize("said", [1, 3])
async def test_the_limit_that_a_job_says_is_stronger_than_its_queues(storage, said):
    await enqueue(storage, **of(Group("a", limit=said)))
    await storage.queues.set("default", {"group_limit": 2})

    await enqueue(storage, **of("a"))

    [group] = await storage.groups.all()
    assert group.limit == said


async def test_of_jobs_that_come_together_the_one_that_says_a_limit_is_heard(storage):
    await storage.queues.set("default", {"group_limit": 5})

    await storage.jobs.enqueue_many([job(**of("a")), job(**of(Group("a", limit=2))), job(**of("a"))])

    [group] = await storage.groups.all()
    assert (group.limit, group.occupants, group.blocked) == (2, 2, 1)


async def test_the_limit_of_a_group_that_nobody_uses_is_kept_where_people_set_it(storage):
    with pytest.raises(UnknownGroup):
        await storage.groups.set("a", None)
    await storage.groups.set("a", 2)
    await storage.groups.forget(epoch=await leader(storage))

    [group] = await storage.groups.all()
    assert (group.limit, group.set_limit) == (2, 2)


async def test_a_job_of_several_groups_waits_until_each_has_a_place(storage):
    me = await worker(storage)
    await enqueue(storage, **of("a"))
    await enqueue(storage, **of("b"))
    both = await enqueue(storage, **of("a", "b"))
    assert await state(storage, both) is State.BLOCKED

    one, other = await claim(storage, me)
    await storage.claims.finish([done(one)])
    assert await state(storage, both) is State.BLOCKED
    await storage.claims.finish([done(other)])
    assert await state(storage, both) is State.PENDING


async def test_a_job_that_waits_for_another_group_keeps_nobody_from_the_place_that_is_free(storage):
    me = await worker(storage)
    await enqueue(storage, **of("a"))
    await enqueue(storage, **of("b"))
    both, more = await enqueue(storage, **of("a", "b")), await enqueue(storage, **of("a"))
    of_a, of_b = await claim(storage, me)

    await storage.claims.finish([done(of_a)])

    assert (await state(storage, both), await state(storage, more)) == (State.BLOCKED, State.PENDING)
    await storage.claims.finish([done(of_b)])
    assert await state(storage, both) is State.BLOCKED
    [last] = await claim(storage, me)
    await storage.claims.finish([done(last)])
    assert await state(storage, both) is State.PENDING


async def test_tenants_share_a_group_that_all_of_them_are_in(storage):
    me = await worker(storage)
    everyone = Group("all", limit=2)
    made = [await enqueue(storage, **of(f"t{number % 3}", everyone)) for number in range(30)]
    ended = []

    while claims := await claim(storage, me):
        assert len(claims) <= 2
        ended += [one.job_id for one in claims]
        await storage.claims.finish([done(one) for one in claims])

    assert sorted(ended) == made


async def test_a_blocked_job_of_several_groups_that_goes_leaves_its_turn_to_the_next(storage):
    me = await worker(storage)
    everyone = Group("all", limit=1)
    await enqueue(storage, **of(everyone))
    ids = [await enqueue(storage, **of("a", everyone)) for _ in range(3)]

    await storage.jobs.cancel(ids[0])
    await storage.claims.finish([done(one) for one in await claim(storage, me)])

    assert [await state(storage, one) for one in ids[1:]] == [State.PENDING, State.BLOCKED]


async def test_a_group_that_drops_the_newest_answers_with_the_job_that_has_the_place(storage):
    only = Group("a", overflow="drop_newest")
    first = await enqueue(storage, **of(only))

    answer = await storage.jobs.enqueue(job(**of(only)))

    assert (answer.id, answer.duplicate, answer.dropped) == (first, True, True)
    assert await storage.jobs.newest() == first


async def test_a_scheduled_job_that_is_dropped_when_it_is_due_is_dead(storage, clock):
    await clock.freeze()
    only = Group("a", overflow="drop_newest")
    delayed = await enqueue(storage, **of(only, delay=timedelta(seconds=5), key="k"))
    await enqueue(storage, **of(only))

    await clock.advance(seconds=6)
    await storage.schedule.make_pending()

    found = await storage.jobs.get(delayed)
    assert (found.state, found.error) == (State.DEAD, "dropped: its group had no place for it")


@pytest.mark.parametrize("mode", [KeyMode.DEDUPE, KeyMode.REPLACE])
async def test_a_job_with_a_key_or_a_hold_that_is_dropped_at_once_says_so(storage, mode):
    only = Group("a", overflow="drop_newest")
    await enqueue(storage, **of(only))

    for facts in ({"key": "k"}, {"hold": Hold(b"user 7", timedelta(hours=1))}):
        answer = await storage.jobs.enqueue(job(**of(only, key_mode=mode, **facts)))
        assert answer.dropped


async def test_the_retry_of_a_job_is_not_the_newest(storage):
    me = await worker(storage)
    only = Group("a", overflow="drop_newest")
    first = await enqueue(storage, **of(only))
    await storage.claims.postpone([failed(one, delay=timedelta(0)) for one in await claim(storage, me)])
    await enqueue(storage, **of(only))

    await storage.schedule.make_pending()

    assert await state(storage, first) is State.BLOCKED


async def test_a_group_that_cancels_what_runs_makes_room_for_the_newest(storage):
    me = await worker(storage)
    newest = Group("a", overflow="cancel_running")
    first = await enqueue(storage, **of(newest))
    [running] = await claim(storage, me)
    second = await enqueue(storage, **of(newest))
    third = await enqueue(storage, **of(newest))

    assert (await storage.jobs.get(first)).cancel_requested_at is not None
    assert (await state(storage, second), await state(storage, third)) == (State.DEAD, State.BLOCKED)
    await storage.claims.finish([dead(running, "cancelled by user")])
    assert await state(storage, third) is State.PENDING


async def test_a_group_that_cancels_what_runs_cancels_what_is_pending_too(storage):
    newest = Group("a", overflow="cancel_running")
    first, second = await enqueue(storage, **of(newest)), await enqueue(storage, **of(newest))

    assert (await state(storage, first), await state(storage, second)) == (State.DEAD, State.PENDING)


async def test_the_audit_frees_places_that_a_worker_which_knows_no_groups_has_left(storage, database):
    me = await worker(storage)
    _, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))
    [running] = await claim(storage, me)
    running.links = None  # as such a worker reads it
    await storage.claims.finish([done(running)])
    assert await state(storage, second) is State.BLOCKED

    assert await storage.groups.audit(epoch=await leader(storage)) == 1

    assert await state(storage, second) is State.PENDING


async def test_the_audit_lets_in_who_was_left_behind(storage, database):
    _, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))
    await database.run("UPDATE job_group SET said = 2")
    epoch = await leader(storage)

    assert await storage.groups.audit(epoch=epoch) == 1
    assert await state(storage, second) is State.PENDING
    assert await storage.groups.audit(epoch=epoch) == 0


async def test_the_leader_forgets_groups_that_nobody_uses(storage):
    first = await enqueue(storage, **of("a"))
    epoch = await leader(storage)
    await storage.groups.forget(epoch=epoch)
    assert [one.name for one in await storage.groups.all()] == ["a"]
    await storage.jobs.cancel(first)

    await storage.groups.forget(epoch=epoch - 1)
    assert [one.name for one in await storage.groups.all()] == ["a"]
    await storage.groups.forget(epoch=epoch)
    assert await storage.groups.all() == []


async def test_who_does_not_lead_audits_nothing(storage, database):
    epoch = await leader(storage)
    _, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))
    me = await worker(storage)
    [running] = await claim(storage, me)
    running.links = None
    await storage.claims.finish([done(running)])

    await storage.groups.audit(epoch=epoch - 1)

    assert await state(storage, second) is State.BLOCKED
    await storage.groups.audit(epoch=epoch)


async def test_a_lost_job_gives_its_place_to_the_next(storage):
    me = await worker(storage)
    first, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))
    await claim(storage, me)
    await storage.workers.deregister(me)

    lost = await storage.claims.lost(epoch=await leader(storage))
    assert [one.links for one in lost] == [1]
    await storage.claims.postpone([failed(one, "worker lost") for one in lost])

    assert (await state(storage, first), await state(storage, second)) == (State.RETRYING, State.PENDING)


async def test_blocked_jobs_are_listed_counted_and_cancelled_together(storage):
    ids = [await enqueue(storage, **of("a")) for _ in range(4)]

    assert [one.id for one in await storage.jobs.find(state=State.BLOCKED)] == ids[:0:-1]
    assert await storage.jobs.count(State.BLOCKED) == 3
    assert [one.changed async for one in move_all(storage, Move.CANCEL, State.BLOCKED)] == [3]
    assert [await state(storage, one) for one in ids] == [State.PENDING, *[State.DEAD] * 3]


@pytest.mark.parametrize("overflow", ["drop_newest", "cancel_running"])
@pytest.mark.parametrize("reason", [Reason.THROTTLED, Reason.RESCHEDULED])
async def test_a_job_that_comes_back_drops_and_cancels_nothing(storage, overflow, reason):
    rule = Group("a", overflow=overflow)
    me = await worker(storage)
    first = await enqueue(storage, **of(rule))
    [running] = await claim(storage, me)
    await storage.claims.postpone([Postponement(running, reason, delay=timedelta(0), counted=False)])
    second = await enqueue(storage, **of(rule))

    await storage.schedule.make_pending()

    assert await state(storage, second) is State.PENDING
    assert await state(storage, first) is State.BLOCKED


async def test_a_dead_job_that_is_retried_drops_and_cancels_nothing(storage):
    rule = Group("a", overflow="drop_newest")
    first = await ended(storage, await worker(storage), State.DEAD, **of(rule))
    second = await enqueue(storage, **of(rule))

    await storage.jobs.retry(first)
    await storage.schedule.make_pending()

    assert await state(storage, second) is State.PENDING
    assert await state(storage, first) is State.BLOCKED


async def test_the_facts_of_a_job_say_its_groups(storage):
    found = await storage.jobs.get(await enqueue(storage, **of(Group("a", limit=3), "b")))

    assert found.groups == (Group("a", limit=3), Group("b"))


async def test_a_place_of_a_job_that_its_queue_does_not_keep_is_handed_over_too(storage, database):
    await storage.queues.set("default", {"done_retention": timedelta(0)})
    me = await worker(storage)
    await enqueue(storage, **of("a"))
    second = await enqueue(storage, **of("a"))
    [running] = await claim(storage, me)

    async with database.transaction() as connection:
        at = await storage.completions.complete(done(running), connection=connection)

    await storage.completions.fate(Completion(running.job_id, me, running.attempt, at, Outcome.DONE))
    assert await state(storage, second) is State.PENDING


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.RESCHEDULED])
async def test_a_place_that_a_transaction_of_the_handler_gave_up_is_handed_over_when_its_fate_is_known(
    storage, database, outcome
):
    me = await worker(storage)
    first, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))
    [running] = await claim(storage, me)

    async with database.transaction() as connection:
        if outcome is Outcome.DONE:
            at = await storage.completions.complete(done(running), connection=connection)
        else:
            put_off = Postponement(running, Reason.RESCHEDULED, delay=timedelta(days=1))
            at = await storage.completions.reschedule(put_off, connection=connection)
    completion = Completion(running.job_id, me, running.attempt, at, outcome)

    assert await storage.completions.fate(completion) is Fate.COMMITTED
    assert await state(storage, second) is State.PENDING
    assert await state(storage, first) is (State.DONE if outcome is Outcome.DONE else State.SCHEDULED)


async def test_a_job_that_replaces_one_with_a_place_joins_its_own_groups(storage):
    first = await enqueue(storage, **of("a", key="k"))
    second = await enqueue(storage, **of("a"))

    answer = await storage.jobs.enqueue(job(**of("b", key="k", key_mode=KeyMode.REPLACE)))

    assert (answer.id, answer.replaced) == (first, True)
    assert await state(storage, second) is State.PENDING
    assert (await storage.jobs.get(first)).groups == (Group("b"),)
    assert await state(storage, first) is State.PENDING


async def test_a_blocked_job_is_removed_by_its_key(storage):
    first = await enqueue(storage, **of("a", key="k"))
    second = await enqueue(storage, **of("a", key="l"))
    third = await enqueue(storage, **of("a"))

    assert await storage.keys.remove("work", "l") is Removed.DELETED
    assert await storage.keys.remove("work", "k") is Removed.DELETED

    assert await state(storage, third) is State.PENDING
    for gone in (first, second):
        with pytest.raises(JobNotFound):
            await storage.jobs.get(gone)


@pytest.mark.parametrize("mode", [KeyMode.PRESERVE_RUN_AT, KeyMode.PUT_OFF])
async def test_a_job_that_is_replaced_where_its_time_is_preserved_keeps_its_place_in_its_group(storage, mode):
    first = await enqueue(storage, **of("a", key="k"))
    second = await enqueue(storage, **of("a"))

    answer = await storage.jobs.enqueue(job(**of("a", key="k", key_mode=mode, payload=b"2")))

    assert (answer.id, answer.replaced) == (first, True)
    assert (await state(storage, first), await state(storage, second)) == (State.PENDING, State.BLOCKED)
    assert [one.payload for one in await claim(storage, await worker(storage))] == [b"2"]


async def test_a_blocked_job_that_is_replaced_where_its_time_is_preserved_keeps_its_place_in_line(
    storage, clock
):
    me = await worker(storage)
    ids = []
    for key in ("a", "b", "c"):
        ids.append(await enqueue(storage, **of("a", key=key)))
        await clock.advance(seconds=1)

    answer = await storage.jobs.enqueue(
        job(**of("a", key="b", key_mode=KeyMode.PRESERVE_RUN_AT, payload=b"2"))
    )
    ended_in_order = []
    while claims := await claim(storage, me):
        ended_in_order += [one.job_id for one in claims]
        await storage.claims.finish([done(one) for one in claims])

    assert (answer.id, answer.replaced) == (ids[1], True)
    assert ended_in_order == ids


async def test_a_limit_holds_that_a_job_says_which_is_replaced_at_its_place(storage):
    await enqueue(storage, **of("a", key="k"))
    second = await enqueue(storage, **of("a"))

    await storage.jobs.enqueue(
        job(**of(Group("a", limit=2), key="k", key_mode=KeyMode.PRESERVE_RUN_AT, payload=b"2"))
    )

    assert await state(storage, second) is State.PENDING
    [group] = await storage.groups.all()
    assert (group.limit, group.occupants, group.blocked) == (2, 2, 0)


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_a_job_keeps_its_place_in_its_queue_or_line_when_it_is_replaced_with_another_limit(
    storage, clock, limit
):
    me = await worker(storage)
    ids = []
    for key in ("a", "b", "c", "d", "e"):
        ids.append(await enqueue(storage, **of(Group("a", limit=2), key=key)))
        await clock.advance(seconds=1)

    for key in ("a", "d"):
        replacing = job(**of(Group("a", limit=limit), key=key, key_mode=KeyMode.PRESERVE_RUN_AT))
        assert (await storage.jobs.enqueue(replacing)).replaced

    assert (await storage.groups.all())[0].limit == limit
    begun = []
    while claims := await claim(storage, me):
        begun += [one.job_id for one in claims]
        await storage.claims.finish([done(one) for one in claims])
    assert begun == ids


async def test_a_blocked_job_that_is_replaced_at_its_place_is_not_dropped(storage):
    newest = Group("a", overflow="drop_newest")
    await storage.groups.pause("a", until=None, reason=None)
    waiting = await enqueue(storage, **of(newest, key="k"))

    answer = await storage.jobs.enqueue(job(**of(newest, key="k", key_mode=KeyMode.PRESERVE_RUN_AT)))

    assert (answer.id, answer.replaced) == (waiting, True)
    assert await state(storage, waiting) is State.BLOCKED


@pytest.mark.parametrize("groups", [(), ("b",)])
async def test_a_job_that_leaves_its_group_when_it_is_replaced_hands_its_place_over(storage, groups):
    await enqueue(storage, **of("a", key="k"))
    second = await enqueue(storage, **of("a"))
    facts = of(*groups, key="k", key_mode=KeyMode.REPLACE) if groups else {"key": "k", "key_mode": "replace"}

    await storage.jobs.enqueue_many([job(**{**facts, "key_mode": KeyMode.REPLACE})] * 2)

    assert await state(storage, second) is State.PENDING


async def test_a_job_of_several_groups_that_is_replaced_leaves_its_turn_to_the_next(storage):
    me = await worker(storage)
    everyone = Group("all", limit=1)
    await enqueue(storage, **of(everyone))
    await enqueue(storage, **of("a", everyone, key="k"))
    third = await enqueue(storage, **of("a", everyone))

    await storage.jobs.enqueue(job(key="k", key_mode=KeyMode.REPLACE))
    await storage.claims.finish([done(one) for one in await claim(storage, me)])

    assert await state(storage, third) is State.PENDING


@pytest.mark.parametrize("how", ["replace", "remove", "leave"])
async def test_a_place_that_a_transaction_of_a_caller_frees_is_given_away_when_somebody_looks(
    storage, database, how
):
    await enqueue(storage, **of("a", key="k"))
    second = await enqueue(storage, **of("a"))

    async with database.transaction() as connection:
        if how == "remove":
            assert await storage.keys.remove("work", "k", connection=connection) is Removed.DELETED
        else:
            facts = of("b") if how == "replace" else {}
            replacing = job(**facts, key="k", key_mode=KeyMode.REPLACE)
            assert (await storage.jobs.enqueue(replacing, connection=connection)).replaced
    while (await storage.schedule.make_pending())[1] == timedelta(0):
        pass  # the next look is due at once

    assert await state(storage, second) is State.PENDING


async def test_a_place_that_a_handler_frees_whose_worker_is_killed_is_given_away_when_somebody_looks(
    storage, database
):
    me = await worker(storage)
    await enqueue(storage, **of("a"))
    second = await enqueue(storage, **of("a"))
    [running] = await claim(storage, me)

    async with database.transaction() as connection:
        await storage.completions.complete(done(running), connection=connection)
    await storage.schedule.make_pending()

    assert await state(storage, second) is State.PENDING


async def test_a_group_that_cancels_what_runs_cancels_jobs_that_wait_for_another_group_too(storage):
    me = await worker(storage)
    await enqueue(storage, **of("b"))
    both = await enqueue(storage, **of("a", "b"))
    await enqueue(storage, **of("a"))
    await claim(storage, me)

    newest = await enqueue(storage, **of(Group("a", overflow="cancel_running")))

    assert await state(storage, both) is State.DEAD
    assert await state(storage, newest) is State.BLOCKED


@pytest.mark.parametrize("what", ["queue", "kind"])
async def test_the_facts_of_a_blocked_job_say_that_the_one_before_it_is_paused(storage, clock, what):
    until = await clock.freeze() + timedelta(minutes=5)
    first, second = await enqueue(storage, **of("a")), await enqueue(storage, **of("a"))
    if what == "queue":
        await storage.queues.set(
            "default", {"paused": True, "paused_until": until, "pause_reason": "the bank is closed"}
        )
    else:
        await storage.kinds.pause("work", until=until, reason="the bank is closed")

    [full] = (await storage.jobs.waiting(second)).full_groups

    assert (full.holder, full.holder_paused_until, full.holder_pause_reason) == (
        first,
        until,
        "the bank is closed",
    )
    assert (full.paused_queue, full.paused_kind) == (("default", None) if what == "queue" else (None, "work"))
