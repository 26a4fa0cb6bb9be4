"""In a queue, tenants take turns: the jobs of one that has many are spread over the turns to come."""

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import groupby

import pytest

from forge_jobs.errors import PastEpoch, UnknownQueue
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import ENDED, KeyMode, State
from forge_jobs.model.match import Move
from forge_jobs.storage.postgres import passed_turns
from tests.storage.factories import (
    claim,
    claim_ids,
    dead,
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


async def tenants_in_order(storage, me, limit=1000, **options):
    """Claim jobs and end them; return their tenants in the order of their turns."""
    claims = await claim(storage, me, limit=limit, **options)
    await storage.claims.finish([done(one) for one in claims])
    return [(await storage.jobs.get(one.job_id)).tenant for one in claims]


async def test_a_tenant_with_one_job_waits_for_one_job_of_each_other_tenant(storage):
    me = await worker(storage)
    await enqueue_many(storage, 50, tenant="many")
    await enqueue_many(storage, 50, tenant="more")
    await enqueue(storage, tenant="one")

    assert (await tenants_in_order(storage, me, limit=3)).count("one") == 1


async def test_it_does_so_however_far_the_others_have_come(storage):
    me = await worker(storage)
    await enqueue_many(storage, 500, tenant="many")
    await tenants_in_order(storage, me, limit=300)

    await enqueue(storage, tenant="one")

    assert "one" in await tenants_in_order(storage, me, limit=2)


async def test_newcomers_do_not_pass_again_and_again_a_job_that_waits(storage):
    me = await worker(storage)
    await enqueue_many(storage, 10, tenant="many")
    for number in range(10):
        await enqueue(storage, tenant=f"newcomer {number}")
    served = []
    for number in range(10, 60):  # one comes for each that is served
        served += await tenants_in_order(storage, me, limit=1)
        await enqueue(storage, tenant=f"newcomer {number}")

    assert served.count("many") >= 4


async def test_tenants_with_as_many_jobs_take_turns(storage):
    me = await worker(storage)
    for tenant in "abc":
        await enqueue_many(storage, 10, tenant=tenant)

    order = await tenants_in_order(storage, me)

    rounds = [order[start : start + 3] for start in range(0, 30, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)


async def test_the_jobs_of_a_tenant_keep_their_order(storage):
    me = await worker(storage)
    ids = await enqueue_many(storage, 20, tenant="a")
    ids += [await enqueue(storage, tenant="a") for _ in range(5)]

    assert await claim_ids(storage, me) == ids


@pytest.mark.parametrize("count", [30, 300])
async def test_many_at_once_get_their_turns_as_those_that_come_one_by_one(storage, count):
    me = await worker(storage)
    jobs = [job(tenant=tenant) for tenant in ("a", "b") for _ in range(count)]

    made = await storage.jobs.enqueue_many(jobs)

    assert len({one.id for one in made}) == 2 * count
    order = await tenants_in_order(storage, me)
    assert [Counter(order[start : start + 2]) for start in range(0, 2 * count, 2)] == [Counter("ab")] * count


async def test_a_tenant_alone_gets_everything_at_once(storage):
    me = await worker(storage)
    await enqueue_many(storage, 100, tenant="a")

    assert await tenants_in_order(storage, me) == ["a"] * 100


async def test_a_tenant_that_was_alone_has_no_debt(storage):
    me = await worker(storage)
    await enqueue_many(storage, 300, tenant="a")
    await tenants_in_order(storage, me)

    await enqueue_many(storage, 10, tenant="b")
    await enqueue(storage, tenant="a")

    assert "a" in await tenants_in_order(storage, me, limit=2)


async def test_a_tenant_that_was_away_has_saved_nothing(storage):
    me = await worker(storage)
    await enqueue_many(storage, 300, tenant="a")
    await tenants_in_order(storage, me, limit=200)

    await enqueue_many(storage, 50, tenant="b")

    assert Counter(await tenants_in_order(storage, me, limit=20)) == {"a": 10, "b": 10}


async def test_priorities_come_first_and_tenants_take_turns_within_each(storage):
    me = await worker(storage)
    await enqueue_many(storage, 3, tenant="a", priority=1)
    await enqueue_many(storage, 3, tenant="a")
    await enqueue(storage, tenant="b", priority=1)

    order = await tenants_in_order(storage, me)

    assert order[:3] == ["a"] * 3
    assert "b" in order[3:5]


async def test_queues_have_turns_of_their_own(storage):
    me = await worker(storage, ["default", "mail"])
    await enqueue_many(storage, 10, tenant="a", queue="mail")
    await enqueue_many(storage, 10, tenant="b")

    await enqueue(storage, tenant="a")

    assert "a" in await tenants_in_order(storage, me, limit=2)


async def test_jobs_without_a_tenant_are_in_the_order_in_which_they_came(storage):
    me = await worker(storage)
    first = await enqueue(storage)
    second = await enqueue(storage, tenant="a")
    third = await enqueue(storage)

    assert {first, second, third} == set(await claim_ids(storage, me))


async def test_a_new_job_is_behind_all_that_were_claimed(storage):
    me = await worker(storage)
    await enqueue_many(storage, 20, tenant="a")
    last = (await claim(storage, me, limit=10))[-1].pos

    await enqueue(storage, tenant="b")
    [new] = [one for one in await claim(storage, me) if one.job_id == await storage.jobs.newest()]

    assert new.pos > last


async def test_after_an_idle_time_turns_go_on_from_the_present_moment(storage, clock):
    me = await worker(storage)
    await clock.freeze()
    await enqueue_many(storage, 5, tenant="a")
    await tenants_in_order(storage, me)
    await clock.advance(hours=1)
    now = int(clock.now().timestamp() * 1_000_000)

    await enqueue(storage, tenant="a")

    [found] = await claim(storage, me, hint=(0, now - 1000))
    assert found.pos >= now


async def test_a_job_that_is_tried_again_takes_a_turn_of_its_tenant(storage):
    me = await worker(storage)
    await enqueue(storage, tenant="a")
    [first] = await claim(storage, me)
    await enqueue_many(storage, 50, tenant="b")

    await storage.claims.postpone([failed(first, delay=timedelta(0))])
    assert (await storage.schedule.make_pending())[0] == 1

    assert "a" in await tenants_in_order(storage, me, limit=2)


async def test_a_job_takes_its_turn_when_its_time_has_come(storage, clock):
    me = await worker(storage)
    await clock.freeze()
    later = await enqueue(storage, tenant="a", delay=timedelta(minutes=1))
    await enqueue_many(storage, 50, tenant="b")
    assert await state(storage, later) is State.SCHEDULED

    await clock.advance(minutes=2)
    assert (await storage.schedule.make_pending())[0] == 1

    assert "a" in await tenants_in_order(storage, me, limit=2)


async def test_a_job_of_a_tenant_and_a_plain_one_end_in_one_batch(storage):
    me = await worker(storage)
    ids = [
        await enqueue(storage),
        await enqueue(storage, tenant="a"),
        await enqueue(storage, tenant="b", key="k"),
    ]
    ids.append(await enqueue(storage, groups=encoded([Group("g")])))
    claims = await claim(storage, me)

    assert await storage.claims.finish([done(one) for one in claims]) == []

    assert [await state(storage, one) for one in ids] == [State.DONE] * 4


async def test_a_job_of_a_tenant_can_die(storage):
    me = await worker(storage)
    await enqueue(storage, tenant="a")
    [running] = await claim(storage, me)

    assert await storage.claims.finish([dead(running)]) == []

    assert await state(storage, running.job_id) is State.DEAD


async def test_a_dead_job_that_is_retried_takes_a_turn(storage):
    me = await worker(storage)
    buried = await enqueue(storage, tenant="a")
    await storage.claims.finish([dead(one) for one in await claim(storage, me)])
    await enqueue_many(storage, 50, tenant="b")

    assert await storage.jobs.retry(buried)

    assert await state(storage, buried) is State.PENDING
    assert "a" in await tenants_in_order(storage, me, limit=2)


async def test_dead_jobs_that_are_retried_together_take_turns(storage):
    me = await worker(storage)
    await enqueue_many(storage, 20, tenant="a")
    await storage.claims.finish([dead(one) for one in await claim(storage, me)])
    await enqueue_many(storage, 20, tenant="b")

    async for _ in move_all(storage, Move.RETRY, State.DEAD):
        pass
    await storage.schedule.make_pending()

    assert Counter(await tenants_in_order(storage, me, limit=20)) == {"a": 10, "b": 10}


async def test_a_scheduled_job_that_is_run_now_takes_a_turn(storage):
    me = await worker(storage)
    later = await enqueue(storage, tenant="a", delay=timedelta(hours=1))
    await enqueue_many(storage, 50, tenant="b")

    assert await storage.jobs.run_now(later)

    assert "a" in await tenants_in_order(storage, me, limit=2)


async def test_a_job_that_is_handed_back_keeps_its_turn(storage):
    me = await worker(storage)
    await enqueue_many(storage, 20, tenant="a")
    before = await claim(storage, me, limit=5)

    assert await storage.claims.hand_back(before) == []

    again = await claim(storage, me, limit=5)
    assert [(one.job_id, one.pos, one.attempt) for one in again] == [
        (one.job_id, one.pos, 1) for one in before
    ]


async def test_a_job_whose_claim_was_forgotten_is_handed_back_to_where_turns_are(storage, clock):
    me = await worker(storage)
    await clock.freeze()
    await enqueue_many(storage, 20, tenant="a")
    await claim(storage, me, limit=1)
    await clock.advance(hours=1)
    held = await storage.claims.held(me)

    await storage.claims.hand_back(held)

    assert await claim_ids(storage, me, limit=1) == [one.job_id for one in held]


async def test_the_job_of_a_lost_worker_takes_a_turn(storage, clock):
    gone, me = await worker(storage), await worker(storage)
    await clock.freeze()
    await enqueue(storage, tenant="a")
    [lost] = await claim(storage, gone)
    await enqueue_many(storage, 50, tenant="b")
    await clock.advance(minutes=1)
    await storage.workers.beat(me)
    found = [one for one in await lost_claims(storage) if one.job_id == lost.job_id]

    await storage.claims.postpone([failed(one, delay=timedelta(0)) for one in found])
    await storage.schedule.make_pending()

    assert "a" in await tenants_in_order(storage, me, limit=2)


@pytest.mark.parametrize("mode", [KeyMode.REPLACE, KeyMode.PRESERVE_RUN_AT])
async def test_a_replaced_job_takes_a_turn_of_its_new_tenant(storage, mode):
    me = await worker(storage)
    await enqueue_many(storage, 20, tenant="a")
    mine = await enqueue(storage, tenant="a", key="k")

    again = await enqueue(storage, tenant="b", key="k", key_mode=mode)
    await storage.schedule.make_pending()

    assert again == mine
    assert "b" in await tenants_in_order(storage, me, limit=2)


@pytest.mark.parametrize("mode", [KeyMode.REPLACE, KeyMode.PRESERVE_RUN_AT, KeyMode.MERGE])
async def test_a_job_may_replace_one_of_a_tenant_that_is_enqueued_with_it(storage, mode):
    me = await worker(storage)
    await enqueue_many(storage, 20, tenant="many")

    first, second, _ = await storage.jobs.enqueue_many(
        [
            job(tenant="one", key="k", payload=b"[1]"),
            job(tenant="one", key="k", key_mode=mode, payload=b"[2]"),
            job(tenant="other"),
        ]
    )

    assert (second.id, second.replaced) == (first.id, True)
    assert (await storage.jobs.get(first.id)).payload == (b"[1,2]" if mode is KeyMode.MERGE else b"[2]")
    assert set(await tenants_in_order(storage, me, limit=5)) == {"many", "one", "other"}


async def test_a_replaced_job_that_keeps_its_place_keeps_its_turn(storage):
    me = await worker(storage)
    first = await enqueue(storage, tenant="a", key="k")
    await storage.schedule.make_pending()
    await enqueue_many(storage, 5, tenant="a")

    await enqueue(storage, tenant="a", key="k", key_mode=KeyMode.PRESERVE_RUN_AT)

    assert (await claim_ids(storage, me))[0] == first


@pytest.mark.parametrize("elsewhere", [{"queue": "other"}, {"priority": 5}])
async def test_a_job_that_is_replaced_elsewhere_takes_a_turn_there(storage, elsewhere):
    me = await worker(storage, ["default", "other"])
    await storage.tenants.set_weight("default", "a", 0.001)  # so that its turns are far apart
    await enqueue_many(storage, 50, tenant="a")
    await enqueue(storage, tenant="a", key="k")
    await storage.schedule.make_pending()
    await storage.tenants.set_weight("default", "a", None)
    await enqueue_many(storage, 20, tenant="b", **elsewhere)

    await enqueue(storage, tenant="a", key="k", key_mode=KeyMode.PRESERVE_RUN_AT, **elsewhere)
    await storage.schedule.make_pending()

    if "priority" in elsewhere:
        await tenants_in_order(storage, me, limit=50)
    assert "a" in await tenants_in_order(storage, me, limit=2, name=elsewhere.get("queue", "default"))


async def moved_elsewhere(storage, elsewhere):
    """Move all jobs of the queue "default" and of priority 0 to another queue, or into another priority."""
    wanted = {"into": "other"} if "queue" in elsewhere else {"priority": 5}
    move = Move.TRANSFER if "queue" in elsewhere else Move.REPRIORITISE
    steps = [
        step
        async for step in move_all(
            storage, move, *(one for one in move.states if one not in ENDED), queue="default", **wanted
        )
    ]
    await storage.schedule.make_pending()
    return sum(step.changed for step in steps)


@pytest.mark.parametrize("elsewhere", [{"queue": "other"}, {"priority": 5}])
async def test_jobs_that_are_moved_elsewhere_are_not_behind_all_that_comes_there(storage, clock, elsewhere):
    me = await worker(storage, ["default", "other"])
    await enqueue_many(storage, 10, tenant="b", **elsewhere)
    await clock.advance(hours=1)
    mine = await enqueue(storage, tenant="a")

    assert await moved_elsewhere(storage, elsewhere) == 1

    before = await storage.jobs.get(mine)
    await enqueue_many(storage, 200, tenant="b", **elsewhere)
    assert mine in await claim_ids(storage, me, elsewhere.get("queue", "default"), limit=3)
    assert (before.state, before.queue, before.priority) == (
        State.PENDING,
        elsewhere.get("queue", "default"),
        elsewhere.get("priority", 0),
    )


@pytest.mark.parametrize("elsewhere", [{"queue": "other"}, {"priority": 5}])
async def test_jobs_that_are_moved_elsewhere_are_not_before_all_that_wait_there(storage, clock, elsewhere):
    me = await worker(storage, ["default", "other"])
    ids = await enqueue_many(storage, 30, tenant="a")
    await clock.advance(hours=1)
    waiting = await enqueue(storage, tenant="b", **elsewhere)
    plain = await enqueue(storage)

    assert await moved_elsewhere(storage, elsewhere) == 31

    order = await claim_ids(storage, me, elsewhere.get("queue", "default"))
    assert waiting in order[:3]
    assert [one for one in order if one not in (waiting, plain)] == ids


async def test_a_job_that_is_moved_has_waited_as_long_as_before(storage, clock):
    await storage.queues.ensure(["other"])
    await enqueue_many(storage, 3, tenant="a")
    await clock.advance(minutes=10)

    await moved_elsewhere(storage, {"queue": "other"})

    [counts] = [one for one in await storage.jobs.counts() if one.queue == "other"]
    assert counts.pending == 3
    assert clock.now() - counts.oldest_pending_at > timedelta(minutes=9)


async def test_a_job_that_has_no_tenant_any_more_is_where_it_would_be_without_one(storage):
    me = await worker(storage)
    await storage.tenants.set_weight("default", "a", 0.001)  # so that its turns are far apart
    await enqueue_many(storage, 50, tenant="a")
    await enqueue(storage, tenant="a", key="k")
    await storage.schedule.make_pending()
    last = await enqueue(storage)

    mine = await enqueue(storage, key="k", key_mode=KeyMode.PRESERVE_RUN_AT)
    await storage.schedule.make_pending()

    ids = await claim_ids(storage, me, limit=100)
    assert ids.index(mine) < ids.index(last)


async def test_a_tenant_that_comes_while_a_kind_is_passed_over_has_saved_nothing(storage):
    me = await worker(storage)
    await storage.kinds.pause("paused", until=None, reason=None)
    await enqueue(storage, kind="paused", tenant="p")
    await enqueue_many(storage, 300, tenant="a")
    await tenants_in_order(storage, me, limit=200, without_kinds=["paused"])

    await enqueue_many(storage, 100, tenant="b")

    order = await tenants_in_order(storage, me, limit=20, without_kinds=["paused"])
    assert Counter(order) == {"a": 10, "b": 10}


async def test_jobs_that_are_passed_over_for_long_keep_their_order(storage, clock):
    epoch, me = await leader(storage), await worker(storage)
    await storage.kinds.pause("paused", until=None, reason=None)
    ids = await enqueue_many(storage, 3, kind="paused", tenant="p")
    await enqueue_many(storage, 3, tenant="p")
    await tenants_in_order(storage, me, without_kinds=["paused"])
    await clock.advance(hours=1)
    await storage.tenants.forget(epoch=epoch)

    made = await storage.jobs.enqueue_many([job(tenant="p"), job("paused", tenant="p"), job(tenant="p")])

    ids += [made[1].id]
    await storage.kinds.resume("paused")
    order = await claim_ids(storage, me)
    assert [one for one in order if one in ids] == ids
    assert len(order) == 6


async def resume(storage, clock, how):
    """The kind "paused" is resumed by somebody, or since its time has come."""
    if how == "by hand":
        assert await storage.kinds.resume("paused")
        return
    await storage.kinds.pause("paused", until=clock.now() + timedelta(minutes=1), reason=None)
    await clock.advance(minutes=2)
    assert list((await storage.kinds.end_pauses())[0]) == ["paused"]


@pytest.mark.parametrize("how", ["by hand", "by itself"])
@pytest.mark.parametrize("together", [7, 10_000])
async def test_jobs_of_a_kind_that_is_resumed_come_in_turn_with_all_that_wait(
    storage, clock, how, together, monkeypatch
):
    monkeypatch.setattr(passed_turns, "TOGETHER", together)
    me = await worker(storage)
    await storage.kinds.pause("paused", until=None, reason=None)
    ids = await enqueue_many(storage, 80, kind="paused", tenant="a")
    mine = await enqueue_many(storage, 5, kind="paused", tenant="c")
    plain = await enqueue(storage, kind="paused")
    await enqueue_many(storage, 100, tenant="b")
    assert await tenants_in_order(storage, me, limit=50, without_kinds=["paused"]) == ["b"] * 50
    ids += await enqueue_many(storage, 10, kind="paused", tenant="a")

    await resume(storage, clock, how)
    ids += [await enqueue(storage, tenant="a")]

    claims = await claim(storage, me, limit=1000)
    order = [(await storage.jobs.get(one.job_id)).tenant for one in claims if one.job_id != plain]
    assert Counter(order[:15]) == {"a": 5, "b": 5, "c": 5}
    assert Counter(order[15:105]) == {"a": 45, "b": 45}
    claimed = [one.job_id for one in claims]
    assert [one for one in claimed if one in set(ids)] == ids
    assert [one for one in claimed if one in set(mine)] == mine
    assert plain in claimed


async def left_alone(storage, jobs=300):
    """Jobs of a kind that nobody handles wait, and turns of theirs have come; return who handles the others."""
    me = await worker(storage)
    await enqueue_many(storage, jobs, kind="new", tenant="a")
    await enqueue_many(storage, 900, tenant="b")
    assert await tenants_in_order(storage, me, limit=400, without_kinds=["new"]) == ["b"] * 400
    return me


async def test_jobs_of_a_kind_that_a_worker_begins_to_handle_come_in_turn_with_all_that_wait(storage):
    me = await left_alone(storage)

    await asyncio.gather(*[storage.tenants.take_up(["new", "other"], ["default"]) for _ in range(2)])

    assert Counter(await tenants_in_order(storage, me, limit=100)) == {"a": 50, "b": 50}
    assert (await storage.jobs.get(await enqueue(storage, kind="new", tenant="a"))).state is State.PENDING


@pytest.mark.parametrize("why", ["handled", "paused", "another queue", "another kind", "a handful"])
async def test_turns_stay_as_they_are_when_a_worker_begins_to_handle_what_is_not_left_alone(
    storage, database, why
):
    await left_alone(storage, 99 if why == "a handful" else 300)
    if why == "handled":
        await worker(storage, kinds=("new",))
    if why == "paused":
        await storage.kinds.pause("new", until=None, reason=None)
    places = "SELECT job_id, pos FROM ready ORDER BY job_id"
    before = await database.rows(places), await storage.tenants.all()

    await storage.tenants.take_up(
        ["other" if why == "another kind" else "new"], ["mail" if why == "another queue" else "default"]
    )

    assert (await database.rows(places), await storage.tenants.all()) == before


async def test_turns_that_have_not_come_stay_as_they_are_when_a_kind_is_resumed(storage, database):
    me = await worker(storage)
    await enqueue_many(storage, 20, tenant="b")
    await tenants_in_order(storage, me, limit=10)
    await storage.kinds.pause("paused", until=None, reason=None)
    await enqueue_many(storage, 5, kind="paused", tenant="a")
    places = "SELECT job_id, pos FROM ready ORDER BY job_id"
    before = await database.rows(places), await storage.tenants.all()

    await storage.kinds.resume("paused")

    assert (await database.rows(places), await storage.tenants.all()) == before


async def test_jobs_of_kinds_that_are_passed_over_have_their_turns_before_later_ones(storage):
    me = await worker(storage)
    await storage.kinds.pause("paused", until=None, reason=None)
    await enqueue_many(storage, 50, kind="paused", tenant="a")
    await enqueue(storage, tenant="a")
    await claim(storage, me, limit=1, without_kinds=["paused"])

    mine = await enqueue(storage, kind="paused", tenant="b")

    assert mine in (await claim_ids(storage, me, limit=2))


async def test_a_waiting_job_can_be_cancelled_and_deleted(storage):
    ids = await enqueue_many(storage, 3, tenant="a")

    await storage.jobs.cancel(ids[0])
    await storage.jobs.delete(ids[1])

    assert await state(storage, ids[0]) is State.DEAD
    assert [one.id for one in await storage.jobs.find(state=State.PENDING)] == [ids[2]]


async def test_in_a_transaction_of_the_caller_a_job_waits_for_its_turn_until_the_commit(storage, database):
    me = await worker(storage)
    await enqueue_many(storage, 50, tenant="b")
    async with database.transaction() as connection:
        mine = (await storage.jobs.enqueue(job(tenant="a"), connection=connection)).id
    await storage.schedule.make_pending()

    assert await state(storage, mine) is State.PENDING
    assert "a" in await tenants_in_order(storage, me, limit=2)


async def test_a_transaction_of_the_caller_keeps_nobody_from_taking_turns(storage, database, another):
    me = await worker(storage)
    async with database.transaction() as connection:
        if database.kind == "sqlite":
            return  # a transaction has the file for itself
        await storage.jobs.enqueue_many([job(tenant="a")] * 3, connection=connection)
        await enqueue(await another(), tenant="a")

    assert await tenants_in_order(storage, me) == ["a"]


async def test_a_tenant_is_seen_on_its_job(storage):
    mine = await enqueue(storage, tenant="a")

    assert (await storage.jobs.get(mine)).tenant == "a"
    assert (await storage.jobs.get(await enqueue(storage))).tenant is None


async def test_a_pending_job_of_a_tenant_is_as_old_as_it_has_waited(storage, clock):
    me = await worker(storage)
    await clock.freeze()
    await enqueue_many(storage, 5, tenant="a")
    await claim(storage, me, limit=2)
    await clock.advance(minutes=10)
    await enqueue(storage, tenant="b")

    [counts] = await storage.jobs.counts()
    waiting = await storage.jobs.waiting(await storage.jobs.newest())

    assert round((clock.now() - counts.oldest_pending_at).total_seconds(), 3) == 600
    assert waiting.ready_at == clock.now()


async def test_it_is_known_how_many_jobs_are_before_one_and_how_many_of_its_tenant(storage):
    await enqueue_many(storage, 10, tenant="a")
    last = await enqueue(storage, tenant="a")
    await enqueue_many(storage, 4, tenant="b")

    waiting = await storage.jobs.waiting(last)

    assert (waiting.ahead, waiting.ahead_of_tenant) == (14, 10)


async def test_a_tenant_of_weight_three_has_three_turns_for_each_of_another(storage):
    me = await worker(storage)
    assert await storage.tenants.set_weight("default", "big", 3)
    await enqueue_many(storage, 90, tenant="big")
    await enqueue_many(storage, 90, tenant="small")

    assert Counter(await tenants_in_order(storage, me, limit=40)) == {"big": 30, "small": 10}


async def test_a_tenant_of_a_small_weight_has_few_turns(storage):
    me = await worker(storage)
    await storage.tenants.set_weight("default", "small", 0.1)
    await enqueue_many(storage, 90, tenant="big")
    await enqueue_many(storage, 90, tenant="small")

    assert Counter(await tenants_in_order(storage, me, limit=44)) == {"big": 40, "small": 4}


async def test_a_weight_holds_in_its_queue_and_for_jobs_that_come(storage):
    me = await worker(storage, ["default", "mail"])
    await storage.tenants.set_weight("mail", "a", 10)
    await enqueue_many(storage, 20, tenant="a")
    await enqueue_many(storage, 20, tenant="b")
    await storage.tenants.set_weight("default", "a", 10)

    assert Counter(await tenants_in_order(storage, me, limit=20)) == {"a": 10, "b": 10}


async def test_a_weight_is_said_once_and_taken_back_once(storage):
    assert await storage.tenants.set_weight("default", "a", 2)
    assert not await storage.tenants.set_weight("default", "a", 2)
    assert [(one.tenant, one.weight) for one in await storage.tenants.all()] == [("a", 2.0)]

    assert await storage.tenants.set_weight("default", "a", None)
    assert not await storage.tenants.set_weight("default", "a", None)
    assert await storage.tenants.all() == []


async def test_a_weight_in_a_queue_that_is_not_there_is_refused(storage):
    with pytest.raises(UnknownQueue):
        await storage.tenants.set_weight("nowhere", "a", 2)
    with pytest.raises(UnknownQueue):
        await storage.tenants.all(queue="nowhere")


async def test_tenants_are_listed_with_the_turns_that_they_have_before_them(storage):
    me = await worker(storage, ["default", "mail"])
    await storage.tenants.set_weight("default", "b", 2)
    for tenant in "ab":
        await enqueue_many(storage, 20, tenant=tenant)
    await enqueue(storage, tenant="c", queue="mail")
    await tenants_in_order(storage, me, limit=3)

    listed = {one.tenant: one for one in await storage.tenants.all(queue="default")}

    assert set(listed) == {"a", "b"}
    assert 18 <= listed["a"].waiting <= 20
    assert (listed["b"].weight, 17 <= listed["b"].waiting <= 20) == (2.0, True)


async def test_nothing_is_kept_of_turns_that_came_a_while_ago(storage, database, clock):
    me = await worker(storage)
    epoch = await leader(storage)
    await clock.freeze()
    await enqueue_many(storage, 5, tenant="gone")
    await enqueue_many(storage, 5, tenant="gone too")
    for _ in range(5):
        await tenants_in_order(storage, me, limit=2)
    await storage.tenants.forget(epoch=epoch)
    assert len(await database.rows("SELECT tenant FROM tenant_turn")) == 2
    await clock.advance(minutes=11)
    await enqueue(storage, tenant="there")

    await storage.tenants.forget(epoch=epoch)

    assert await database.rows("SELECT tenant FROM tenant_turn") == [("there",)]
    assert len(await database.rows("SELECT pos FROM tenant_clock")) == 1


async def test_what_a_deleted_queue_knew_of_tenants_is_forgotten(storage, database):
    me = await worker(storage, ["default", "mail"])
    epoch = await leader(storage)
    await enqueue(storage, tenant="a", queue="mail")
    await claim(storage, me, "mail")
    await database.run("DELETE FROM claimed; DELETE FROM job")
    await database.run(
        "DELETE FROM slot; DELETE FROM tally WHERE queue_id IN (SELECT id FROM queue WHERE name = 'mail')"
    )
    await database.run("DELETE FROM queue WHERE name = 'mail'")

    await storage.tenants.forget(epoch=epoch)

    for table in ("tenant_turn", "tenant_clock"):
        assert await database.rows(f"SELECT * FROM {table}") == []


async def test_a_leader_that_no_longer_leads_forgets_nothing(storage, database, clock):
    me = await worker(storage)
    epoch = await leader(storage)
    await enqueue_many(storage, 5, tenant="gone")
    await tenants_in_order(storage, me)
    await clock.advance(minutes=11)

    await storage.tenants.forget(epoch=epoch + 1)

    assert await database.rows("SELECT tenant FROM tenant_turn") == [("gone",)]


async def test_turns_go_on_after_a_crash_that_has_emptied_the_clock(storage, database):
    me = await worker(storage)
    await enqueue_many(storage, 300, tenant="many")
    await tenants_in_order(storage, me, limit=100)
    await database.run("DELETE FROM tenant_clock")

    await enqueue(storage, tenant="one")

    assert "one" in await tenants_in_order(storage, me, limit=2)


async def test_a_job_that_is_nowhere_is_found_and_takes_a_turn(storage, database):
    me = await worker(storage)
    lost = await enqueue(storage, tenant="a")
    await enqueue_many(storage, 50, tenant="b")
    await database.run(f"DELETE FROM ready WHERE job_id = {lost}")

    async for _ in storage.audit.jobs(repair=True):
        pass
    await storage.audit.counts(repair=True)
    await storage.schedule.make_pending()

    assert "a" in await tenants_in_order(storage, me, limit=3)


async def test_a_job_of_a_tenant_does_not_rise_past_the_turns_of_others(storage, clock):
    queue = await storage.queues.set("default", {"age_after": timedelta(minutes=1)})
    epoch = await leader(storage)
    await clock.freeze()
    old = await enqueue(storage, tenant="a", priority=5)
    plain = await enqueue(storage, priority=5)
    await clock.advance(minutes=3)
    await enqueue(storage, tenant="b")

    assert (await storage.ageing.rise(queue.id, epoch=epoch)).jobs == 1
    assert [(await storage.jobs.get(one)).risen for one in (old, plain)] == [0, 3]


async def test_rounds_of_unequal_tenants_are_fair_at_every_moment(storage):
    me = await worker(storage)
    wanted = {"a": 40, "b": 10, "c": 25}
    for tenant, jobs in wanted.items():
        await enqueue_many(storage, jobs, tenant=tenant)

    order = await tenants_in_order(storage, me)

    assert Counter(order) == wanted
    assert max(len(list(row)) for tenant, row in groupby(order[:30])) <= 2


async def test_it_is_told_how_tenants_wait(storage, database):
    me = await worker(storage, ["default", "mail"])
    await enqueue_many(storage, 50, tenant="many")
    await database.clock.advance(minutes=60)
    await enqueue(storage, tenant="one")
    await database.clock.advance(minutes=20)
    await enqueue_many(storage, 2, tenant="two")
    await enqueue_many(storage, 3, queue="mail", tenant="alone")
    await enqueue(storage)
    await database.clock.advance(minutes=10)

    [default, mail] = await storage.tenants.waiting()

    assert (default.queue, default.tenants) == ("default", 3)
    assert timedelta(minutes=30) <= default.others_wait < timedelta(minutes=90)
    assert abs(default.largest - 50) <= 1
    assert (mail.queue, mail.tenants, mail.others_wait) == ("mail", 1, timedelta(0))
    assert [one.tenant for one in await storage.tenants.all()] == ["many", "two", "one", "alone"]

    await tenants_in_order(storage, me)
    assert [one.queue for one in await storage.tenants.waiting()] == ["mail"]


async def test_the_others_are_looked_for_in_all_priorities(storage, database):
    await worker(storage)
    await enqueue(storage, tenant="low", priority=5)
    await database.clock.advance(minutes=30)
    await enqueue_many(storage, 5, tenant="many")

    [default] = await storage.tenants.waiting()
    assert default.tenants == 2
    assert default.others_wait >= timedelta(minutes=30)


async def test_nothing_is_told_where_no_tenant_waits(storage):
    await worker(storage)
    await enqueue(storage)

    assert list(await storage.tenants.waiting()) == []


async def test_all_weights_of_a_queue_are_set_at_once(storage):
    await storage.queues.ensure(["mail"])
    await storage.tenants.set_weight("default", "ada", 2.0)
    await storage.tenants.set_weight("default", "bob", 3.0)
    await storage.tenants.set_weight("mail", "ada", 4.0)

    await storage.tenants.set_weights("default", {"bob": 5.0, "cyd": 0.5})
    assert await storage.tenants.weights() == {"default": {"bob": 5.0, "cyd": 0.5}, "mail": {"ada": 4.0}}

    await storage.tenants.set_weights("default", {})
    assert await storage.tenants.weights() == {"mail": {"ada": 4.0}}
    with pytest.raises(UnknownQueue):
        await storage.tenants.set_weights("nowhere", {})


async def test_an_operator_that_was_replaced_sets_no_weights(storage):
    old = (await storage.versions.take_over("operator-1")).number
    new = (await storage.versions.take_over("operator-2")).number

    with pytest.raises(PastEpoch):
        await storage.tenants.set_weights("default", {"ada": 2.0}, epoch=old)
    assert await storage.tenants.weights() == {}
    await storage.tenants.set_weights("default", {"ada": 2.0}, epoch=new)
    assert await storage.tenants.weights() == {"default": {"ada": 2.0}}
