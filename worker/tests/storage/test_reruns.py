"""An ended job is run again as a new job, and each of the two shows the other."""

from datetime import timedelta

import pytest

from forge_jobs.client.jobs import Jobs
from forge_jobs.errors import JobNotFound, UnknownQueue, WrongState
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import State
from tests.storage.factories import claim, dead, ended, enqueue, job, leader, running, worker

HOUR = timedelta(hours=1)


async def test_a_rerun_is_like_the_job_that_it_runs_again(storage):
    await storage.queues.ensure(["mail"])
    said = {
        "payload": b'{"to":"ada"}',
        "codec": "json",
        "priority": 7,
        "max_attempts": 3,
        "timeout": timedelta(seconds=9),
        "tags": ("a", "b"),
        "groups": encoded([Group("g", limit=2)]),
        "key": "k",
    }
    old = await ended(storage, await worker(storage), State.DEAD, kind="send", queue="mail", **said)

    new = await Jobs(storage).rerun(old)

    assert new.is_new and new.id != old
    before, after = await storage.jobs.get(old), await storage.jobs.get(new.id)
    for name in ("kind", "queue", "payload", "codec", "priority", "max_attempts", "timeout", "key", "tags"):
        assert getattr(after, name) == getattr(before, name), name
    assert [group.name for group in after.groups] == ["g"]
    assert (after.state, after.attempt) == (State.PENDING, 0)
    assert (before.state, before.error) == (State.DEAD, "it broke")


@pytest.mark.parametrize(("newest", "limit"), [(5, 5), (None, 2)])
async def test_a_rerun_says_a_limit_only_of_a_group_that_nobody_uses(storage, newest, limit):
    me = await worker(storage)
    old = await ended(storage, me, groups=encoded([Group("g", limit=2)]))
    if newest is None:
        await storage.groups.forget(epoch=await leader(storage))
    else:
        await enqueue(storage, groups=encoded([Group("g", limit=newest)]))

    await Jobs(storage).rerun(old)

    assert [group.limit for group in await storage.groups.all()] == [limit]


async def test_the_two_show_each_other(storage):
    old = await ended(storage, await worker(storage))
    jobs = Jobs(storage)

    first, second = await jobs.rerun(old), await jobs.rerun(old)

    assert (await jobs.get(old)).reruns == (first.id, second.id)
    assert [(await jobs.get(new)).rerun_of for new in (first, second)] == [old, old]
    [listed] = await storage.jobs.find(state=State.PENDING, limit=1)
    assert listed.rerun_of == old
    assert (await jobs.why(old)).reasons[-1] == f"It was run again as job {second.id}."


async def test_a_rerun_outlives_the_job_that_it_runs_again(storage):
    old = await ended(storage, await worker(storage))
    new = await Jobs(storage).rerun(old)
    await storage.jobs.delete(old)

    assert (await storage.jobs.get(new.id)).rerun_of == old


async def test_a_job_does_not_show_reruns_that_are_gone(storage):
    old = await ended(storage, await worker(storage))
    new = await Jobs(storage).rerun(old)
    await storage.jobs.delete(new.id)

    assert (await storage.jobs.get(old)).reruns == ()


async def test_a_living_job_is_not_run_again(storage):
    me = await worker(storage)
    living = [(await running(storage, me)).job_id, await enqueue(storage, delay=HOUR), await enqueue(storage)]

    for one in living:
        with pytest.raises(WrongState, match=r"only an ended job can be run again\.$"):
            await Jobs(storage).rerun(one)
    with pytest.raises(JobNotFound):
        await Jobs(storage).rerun(99)
    assert len(await storage.jobs.find()) == len(living)


async def test_where_a_living_job_has_its_key_a_job_is_not_run_again(storage):
    me = await worker(storage)
    old = await ended(storage, me, State.DEAD, key="k")
    holder = await enqueue(storage, key="k")

    answer = await Jobs(storage).rerun(old)

    assert (answer.id, answer.duplicate) == (holder, True)
    assert (await storage.jobs.get(old)).reruns == ()


async def test_a_job_whose_queue_is_gone_is_not_run_again(storage, database):
    await storage.queues.ensure(["mail"])
    old = await ended(storage, await worker(storage), queue="mail")
    await database.rows(
        "UPDATE queue SET name = 'deleting:' || id || ':mail' WHERE name = 'mail' RETURNING id"
    )
    # it shows its former name, which is free
    assert (await storage.jobs.get(old)).queue == "mail"

    with pytest.raises(UnknownQueue):
        await Jobs(storage).rerun(old)


async def test_a_rerun_runs_and_may_be_run_again_itself(storage):
    me = await worker(storage)
    old = await ended(storage, me, State.DEAD)
    new = await Jobs(storage).rerun(old)
    [claimed] = await claim(storage, me)
    assert claimed.job_id == new.id
    await storage.claims.finish([dead(claimed)])

    newest = await Jobs(storage).rerun(new.id)

    assert (await storage.jobs.get(newest.id)).rerun_of == new.id
    assert (await storage.jobs.get(old)).reruns == (new.id,)


async def test_reruns_in_a_large_batch_say_what_they_run_again(storage):
    old = await ended(storage, await worker(storage))
    made = await storage.jobs.enqueue_many([job(rerun_of=old), *[job() for _ in range(300)]])

    assert (await storage.jobs.get(old)).reruns == (made[0].id,)
