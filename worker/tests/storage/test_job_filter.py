"""Jobs are listed, counted and moved by their key and by their groups, in every state."""

import pytest

from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import State
from forge_jobs.model.match import Move
from tests.storage.factories import (
    claim,
    ended,
    enqueue,
    failed,
    move_all,
    one_in_each_state,
    running,
    worker,
)

TEAM = encoded([Group("team", 100), Group("others", 100)])
FULL = encoded([Group("team", 100), Group("full", 1)])
HERS = {"key": "hers"}


async def find(storage, **which):
    return [found.id for found in await storage.jobs.find(**which)]


async def of_team(storage, **facts):
    """Return {state: id} of jobs in the group "team", which are in as many states as a group has to do with."""
    me = await worker(storage)
    buried = await ended(storage, me, State.DEAD, groups=TEAM, **facts)
    done = await ended(storage, me, State.DONE, groups=TEAM, **facts)
    failing = await running(storage, me, groups=TEAM, **facts)
    await storage.claims.postpone([failed(failing)])
    return {
        State.DEAD: buried,
        State.DONE: done,
        State.RETRYING: failing.job_id,
        State.IN_PROGRESS: (await running(storage, me, groups=FULL, **facts)).job_id,
        State.BLOCKED: await enqueue(storage, groups=FULL, **facts),
        State.PENDING: await enqueue(storage, groups=TEAM, **facts),
    }


@pytest.mark.parametrize("facts", [{}, {"tags": ("a", "b")}])
async def test_jobs_of_a_group_are_found_and_counted_in_every_state(storage, facts):
    jobs = await of_team(storage, **facts)
    await storage.queues.ensure(["mail"])
    await one_in_each_state(storage, await worker(storage, ["mail"]), queue="mail", **facts)
    tagged = {"with_tags": facts.get("tags", ())}

    assert await find(storage, group="team", **tagged) == sorted(jobs.values(), reverse=True)
    assert await find(storage, group="team", limit=2, **tagged) == sorted(jobs.values())[:-3:-1]
    for state, job_id in jobs.items():
        assert await find(storage, state=state, group="team", **tagged) == [job_id], state
        assert await storage.jobs.count(state, group="team", **tagged) == 1
        assert await find(storage, state=state, group="tea", **tagged) == []
    assert await find(storage, group="full") == [jobs[State.BLOCKED], jobs[State.IN_PROGRESS]]


@pytest.mark.parametrize("facts", [{}, {"tags": ("a",)}])
async def test_jobs_with_a_key_are_found_and_counted_whether_they_have_ended_or_not(storage, facts):
    me = await worker(storage)
    buried = await ended(storage, me, State.DEAD, **HERS, **facts)
    done = await ended(storage, me, State.DONE, **HERS, **facts)
    lives = await enqueue(storage, **HERS, **facts)
    await enqueue(storage, key="his", **facts)
    await enqueue(storage, **facts)
    tagged = {"with_tags": facts.get("tags", ())}

    assert await find(storage, **HERS, **tagged) == [lives, done, buried]
    assert await find(storage, **HERS, kind="other", **tagged) == []
    assert await find(storage, **HERS, kind="work", group="team", **tagged) == []
    for state, job_id in {State.PENDING: lives, State.DONE: done, State.DEAD: buried}.items():
        assert await find(storage, state=state, **HERS, **tagged) == [job_id]
        assert await storage.jobs.count(state, **HERS, **tagged) == 1


@pytest.mark.parametrize("which", [{"group": "team"}, {"key": "hers"}])
@pytest.mark.parametrize("tags", [(), ("a",)])
async def test_an_operation_means_jobs_of_its_group_or_with_its_key_only(storage, which, tags):
    me = await worker(storage)
    facts = {"groups": TEAM, "tags": ("a",)} if "group" in which else {**HERS, "tags": ("a",)}
    buried = await ended(storage, me, State.DEAD, **facts)
    mine = await enqueue(storage, **facts)
    other = await enqueue(storage, tags=("a",))
    others_end = await ended(storage, me, State.DEAD, tags=("a",), priority=-9)

    moved = [one.changed async for one in move_all(storage, Move.CANCEL, State.PENDING, tags=tags, **which)]
    assert sum(moved) == 1
    assert (await storage.jobs.get(mine)).state is State.DEAD
    assert (await storage.jobs.get(other)).state is State.PENDING
    moved = [one.changed async for one in move_all(storage, Move.DELETE, State.DEAD, tags=tags, **which)]
    assert sum(moved) == 2
    assert await find(storage, state=State.DEAD) == [others_end], buried
    [last, _] = await storage.operations.all()
    assert {name: getattr(last, name) for name in which} == which


async def test_jobs_of_a_version_are_pinned_anew_by_what_they_are(storage):
    me, taken = await worker(storage, version="old"), []
    for facts in (HERS, {"groups": TEAM}, {"tags": ("a", "b")}):
        taken.append(await enqueue(storage, **facts))
        [one] = await claim(storage, me)
        assert await storage.pins.add(one)
    keyed, grouped, tagged = taken

    assert list(await storage.pins.of_version("old")) == taken
    assert list(await storage.pins.of_version("old", **HERS)) == [keyed]
    assert list(await storage.pins.of_version("old", group="team")) == [grouped]
    assert list(await storage.pins.of_version("old", with_tags=("b",))) == [tagged]
    assert list(await storage.pins.of_version("old", with_tags=("b", "c"))) == []
