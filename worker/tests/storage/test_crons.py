"""A cron enqueues one job for each of its times, whoever fires it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from forge_jobs.errors import InvalidInput, Managed, UnknownCron, UnknownQueue
from forge_jobs.model.cron import CronConfig, Missed
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import Hold, KeyMode, State
from forge_jobs.model.kind import Kind
from tests.storage.factories import NEVER, claim, cron, done, ended, job, leader, queue, worker

NIGHT = datetime(2030, 1, 1, 3, tzinfo=UTC)
DAY = timedelta(days=1)
HOLD = msgspec.json.encode(Hold(b"same", timedelta(hours=1))).decode()


@pytest.fixture
async def epoch(storage):
    """The epoch of a leader."""
    return await leader(storage)


@pytest.fixture
async def nightly(storage, epoch):
    """A cron whose next fire is at NIGHT."""
    await storage.crons.set(cron())
    await storage.fires.seed("nightly", NIGHT, epoch=epoch)
    return await storage.crons.get("nightly")


async def jobs(storage):
    return sorted(await storage.jobs.find(), key=lambda found: found.id)


async def test_a_cron_is_kept_with_every_fact(storage):
    await storage.queues.ensure(["mail"])
    wanted = CronConfig(
        name="digest",
        expression="*/5 * * * *",
        kind="send",
        timezone="Europe/Berlin",
        payload=b"\x00\xff",
        codec="msgpack",
        queue="mail",
        priority=-3,
        max_attempts=2,
        timeout=timedelta(seconds=1.5),
        overlap=False,
        missed=Missed.ALL,
        missed_limit=7,
        missed_within=timedelta(hours=36),
        tags=("nightly", "shop"),
        enabled=False,
    )
    keyed = replace(wanted, name="keyed", overlap=True, key="k", key_mode=KeyMode.REPLACE)
    grouped = replace(wanted, name="grouped", groups=encoded([Group("a", 2), Group("b")]))
    fair = replace(grouped, name="fair", groups=None, tenant="ada")
    held = replace(keyed, name="held", key=None, hold=HOLD)

    assert await storage.crons.set(wanted) == wanted
    assert await storage.crons.get("digest") == wanted
    assert await storage.crons.set(keyed) == keyed
    assert await storage.crons.set(replace(keyed, name="digest", key=None)) != wanted
    assert await storage.crons.set(grouped) == grouped
    assert await storage.crons.set(replace(grouped, name="digest")) != wanted
    assert await storage.crons.set(wanted) == wanted
    assert await storage.crons.set(fair) == fair
    assert await storage.crons.set(held) == held
    assert await storage.crons.set(replace(held, name="digest")) != wanted
    assert await storage.crons.set(wanted) == wanted
    assert await storage.crons.all() == [wanted, fair, grouped, held, keyed]


async def test_the_jobs_of_a_cron_have_its_key_and_its_tags(storage, epoch, nightly):
    await storage.crons.set(
        replace(nightly, key="report", key_mode=KeyMode.REPLACE, tags=("nightly",), payload=b'{"n": 1}')
    )
    [first] = await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch)
    await storage.crons.set(
        replace(nightly, key="report", key_mode=KeyMode.REPLACE, tags=("nightly",), payload=b'{"n": 2}')
    )
    moved = await storage.crons.get("nightly")

    [second] = await storage.fires.fire(moved, [NIGHT + DAY], NIGHT + 2 * DAY, epoch=epoch)

    assert (second.id, second.replaced) == (first.id, True)
    [found] = await jobs(storage)
    assert (found.key, found.tags, found.payload) == ("report", ("nightly",), b'{"n": 2}')


async def test_a_fire_whose_key_another_job_has_is_skipped_and_counted(storage, epoch, nightly):
    await storage.crons.set(replace(nightly, key="report"))
    await storage.jobs.enqueue(job("report", key="report"))

    [answer] = await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch)

    assert answer.duplicate
    assert (await storage.crons.get("nightly")).skipped == 1


async def test_fires_within_a_time_that_is_said_are_skipped_and_counted(storage, epoch, nightly, clock):
    await clock.freeze()
    await storage.crons.set(replace(nightly, hold=HOLD))

    first, skipped = await storage.fires.fire(nightly, [NIGHT, NIGHT + DAY], NIGHT + 2 * DAY, epoch=epoch)
    assert (skipped.id, skipped.duplicate) == (first.id, True)
    await clock.advance(hours=1)
    [second] = await storage.fires.fire(
        await storage.crons.get("nightly"), [NIGHT + 2 * DAY], NIGHT + 3 * DAY, epoch=epoch
    )

    assert first.id != second.id
    assert (await storage.crons.get("nightly")).skipped == 1
    assert [job.duplicate for job in [await storage.crons.trigger("nightly")]] == [True]


async def test_crons_are_listed_by_name(storage):
    for name in ("b", "c", "a"):
        await storage.crons.set(cron(name))

    assert [one.name for one in await storage.crons.all()] == ["a", "b", "c"]


async def test_an_unknown_queue_is_refused(storage):
    for call in (storage.crons.set, storage.crons.ensure):
        with pytest.raises(UnknownQueue):
            await call(cron(queue="nowhere"))

    assert await storage.crons.all() == []


async def test_an_unknown_cron_is_an_error(storage):
    for call in (storage.crons.get, storage.crons.delete, storage.crons.trigger):
        with pytest.raises(UnknownCron):
            await call("nothing")


async def test_a_cron_that_was_there_keeps_its_configuration(storage, nightly):
    await storage.crons.ensure(cron(expression="@hourly", kind="other"))
    await storage.crons.ensure(cron("weekly"))

    assert await storage.crons.get("nightly") == nightly
    assert [one.name for one in await storage.crons.all()] == ["nightly", "weekly"]


@pytest.mark.parametrize("change", [{"expression": "@daily"}, {"timezone": "Asia/Tokyo"}])
async def test_another_schedule_has_the_next_fire_that_is_given_with_it(storage, nightly, change):
    for given in (NIGHT + DAY, None):
        answer = await storage.crons.set(replace(nightly, next_fire_at=given, **change))
        assert answer.next_fire_at == given
        await storage.crons.set(nightly)


async def test_a_new_cron_has_the_next_fire_that_is_given_with_it(storage):
    assert (await storage.crons.set(cron(next_fire_at=NIGHT))).next_fire_at == NIGHT
    await storage.crons.ensure(cron("weekly", next_fire_at=NIGHT))

    assert (await storage.crons.get("weekly")).next_fire_at == NIGHT


async def test_a_disabled_cron_has_no_next_fire_and_an_enabled_one_that_which_is_given(storage, nightly):
    disabled = replace(nightly, enabled=False)

    assert (await storage.crons.set(disabled)).next_fire_at is None
    assert (await storage.crons.set(disabled)).next_fire_at is None
    assert (await storage.crons.set(replace(nightly, next_fire_at=NIGHT + DAY))).next_fire_at == NIGHT + DAY


@pytest.mark.parametrize("change", [{}, {"kind": "other"}, {"payload": b"[]"}, {"priority": 4}])
async def test_the_same_schedule_keeps_the_next_fire(storage, nightly, change):
    for given in (None, NIGHT + DAY):
        answer = await storage.crons.set(replace(nightly, next_fire_at=given, **change))
        assert answer.next_fire_at == NIGHT


async def test_the_same_schedule_without_a_next_fire_has_that_which_is_given(storage):
    await storage.crons.set(cron())

    assert (await storage.crons.set(cron(next_fire_at=NIGHT))).next_fire_at == NIGHT


async def test_setting_a_cron_clears_its_error(storage, epoch):
    await storage.crons.set(cron())
    await storage.fires.note_error("nightly", "cannot be understood", epoch=epoch)

    assert (await storage.crons.set(cron())).last_error is None


async def test_a_next_fire_that_is_known_is_not_seeded(storage, nightly, epoch):
    await storage.fires.seed("nightly", NIGHT + DAY, epoch=epoch)

    assert (await storage.crons.get("nightly")).next_fire_at == NIGHT
    assert await jobs(storage) == []


async def test_a_fire_enqueues_one_job_and_moves_the_cron_on(storage, epoch):
    await storage.queues.ensure(["mail"])
    facts = {"payload": b"[7]", "codec": "msgpack", "queue": "mail", "priority": 2, "max_attempts": 9}
    await storage.crons.set(cron(timeout=timedelta(seconds=3), **facts))
    await storage.fires.seed("nightly", NIGHT, epoch=epoch)

    [answer] = await storage.fires.fire(await storage.crons.get("nightly"), [NIGHT], NIGHT + DAY, epoch=epoch)

    found = await storage.jobs.get(answer.id)
    assert (found.kind, found.state, found.timeout) == ("report", State.PENDING, timedelta(seconds=3))
    assert {name: getattr(found, name) for name in facts} == facts
    after = await storage.crons.get("nightly")
    assert (after.next_fire_at, after.last_fire_at, after.skipped) == (NIGHT + DAY, NIGHT, 0)


async def test_a_cron_without_max_attempts_has_those_of_its_queue(storage, nightly, epoch):
    await storage.queues.set("default", {"max_attempts": 11})

    [answer] = await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch)

    assert (await storage.jobs.get(answer.id)).max_attempts == 11


async def test_a_fire_of_several_times_enqueues_one_job_for_each(storage, nightly, epoch):
    fires = [NIGHT, NIGHT + DAY, NIGHT + 2 * DAY]

    answers = await storage.fires.fire(nightly, fires, NIGHT + 3 * DAY, epoch=epoch)

    assert len({answer.id for answer in answers}) == 3
    assert (await storage.crons.get("nightly")).last_fire_at == NIGHT + 2 * DAY


async def test_a_fire_of_no_times_moves_the_cron_on(storage, nightly, epoch):
    assert await storage.fires.fire(nightly, [], NIGHT + DAY, epoch=epoch) == []

    after = await storage.crons.get("nightly")
    assert (after.next_fire_at, after.last_fire_at) == (NIGHT + DAY, None)


async def test_a_cron_that_never_fires_again_has_no_next_fire(storage, nightly, epoch):
    await storage.fires.fire(nightly, [NIGHT], None, epoch=epoch)

    assert (await storage.crons.get("nightly")).next_fire_at is None


async def test_the_same_fire_twice_enqueues_once(storage, nightly, epoch):
    await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch)

    assert await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch) == []

    assert len(await jobs(storage)) == 1


async def test_a_fire_time_that_has_a_job_gets_no_second_one(storage, nightly, epoch):
    await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch)
    await storage.crons.set(cron(enabled=False))
    await storage.crons.set(cron())
    await storage.fires.seed("nightly", NIGHT, epoch=epoch)  # as a clock that went back would have it

    await storage.fires.fire(
        await storage.crons.get("nightly"), [NIGHT, NIGHT + DAY], NIGHT + 2 * DAY, epoch=epoch
    )

    assert len(await jobs(storage)) == 2
    assert (await storage.crons.get("nightly")).next_fire_at == NIGHT + 2 * DAY


async def test_a_fire_time_has_no_second_job_when_the_first_has_ended(storage, epoch, nightly):
    me = await worker(storage, kinds=("report",))
    await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch)
    await storage.claims.finish([done(one, keep=False) for one in await claim(storage, me)])
    await storage.crons.set(cron(enabled=False))
    await storage.crons.set(cron())
    await storage.fires.seed("nightly", NIGHT, epoch=epoch)

    await storage.fires.fire(await storage.crons.get("nightly"), [NIGHT], NIGHT + DAY, epoch=epoch)

    assert await jobs(storage) == []


async def test_a_leader_of_the_past_changes_nothing(storage, nightly, epoch, clock):
    old = epoch - 1

    assert await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=old) == []
    await storage.fires.note_error("nightly", "no", epoch=old)
    await storage.crons.set(cron("weekly"))
    await storage.fires.seed("weekly", NIGHT, epoch=old)

    assert await storage.crons.get("nightly") == nightly
    assert (await storage.crons.get("weekly")).next_fire_at is None
    assert await jobs(storage) == []


async def test_a_leader_whose_lease_ran_out_changes_nothing(storage, nightly, epoch, clock):
    await clock.advance(days=NEVER.days + 1)

    assert await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch) == []
    assert await jobs(storage) == []


async def test_a_cron_that_was_edited_meanwhile_does_not_fire_its_old_times(storage, nightly, epoch):
    await storage.crons.set(replace(nightly, expression="@weekly"))

    assert await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch) == []
    after = await storage.crons.get("nightly")
    assert (after.next_fire_at, after.last_fire_at) == (NIGHT, None)


async def test_a_cron_that_was_deleted_meanwhile_does_not_fire(storage, nightly, epoch):
    await storage.crons.delete("nightly")

    assert await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch) == []
    assert await jobs(storage) == []


async def test_without_overlap_a_fire_is_skipped_while_a_job_of_the_cron_lives(storage, epoch):
    me = await worker(storage, kinds=("report",))
    await storage.crons.set(cron(overlap=False))
    await storage.fires.seed("nightly", NIGHT, epoch=epoch)
    for day in range(2):
        fired = await storage.crons.get("nightly")
        await storage.fires.fire(fired, [NIGHT + day * DAY], NIGHT + (day + 1) * DAY, epoch=epoch)

    assert len(await jobs(storage)) == 1
    assert (await storage.crons.get("nightly")).skipped == 1

    await storage.claims.finish([done(one) for one in await claim(storage, me)])
    await storage.fires.fire(
        await storage.crons.get("nightly"), [NIGHT + 2 * DAY], NIGHT + 3 * DAY, epoch=epoch
    )
    assert len(await jobs(storage)) == 2


async def test_without_overlap_only_one_of_several_times_is_run(storage, epoch):
    await storage.crons.set(cron(overlap=False))
    await storage.fires.seed("nightly", NIGHT, epoch=epoch)

    await storage.fires.fire(
        await storage.crons.get("nightly"),
        [NIGHT, NIGHT + DAY, NIGHT + 2 * DAY],
        NIGHT + 3 * DAY,
        epoch=epoch,
    )

    assert len(await jobs(storage)) == 1
    assert (await storage.crons.get("nightly")).skipped == 2


async def test_jobs_of_other_crons_and_users_do_not_make_a_fire_skip(storage, epoch):
    await storage.crons.set(cron(overlap=False))
    await storage.crons.set(cron("other", overlap=False))
    for name in ("nightly", "other"):
        await storage.fires.seed(name, NIGHT, epoch=epoch)
        await storage.fires.fire(await storage.crons.get(name), [NIGHT], NIGHT + DAY, epoch=epoch)

    assert len(await jobs(storage)) == 2


async def test_a_cron_that_cannot_fire_says_why_and_stays_enabled(storage, nightly, epoch):
    await storage.fires.note_error("nightly", "the hour is 25", epoch=epoch)

    assert await storage.crons.get("nightly") == replace(nightly, last_error="the hour is 25")
    await storage.fires.note_error("nightly", None, epoch=epoch)
    assert await storage.crons.get("nightly") == nightly


async def test_a_cron_that_fires_has_no_error(storage, nightly, epoch):
    await storage.fires.note_error("nightly", "the hour is 25", epoch=epoch)

    await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch)

    assert (await storage.crons.get("nightly")).last_error is None


async def test_triggering_enqueues_one_job_and_leaves_the_schedule(storage, nightly):
    answer = await storage.crons.trigger("nightly")

    assert (await storage.jobs.get(answer.id)).kind == "report"
    assert await storage.crons.get("nightly") == nightly


async def test_a_disabled_cron_can_be_triggered(storage):
    await storage.crons.set(cron(enabled=False))

    assert (await storage.crons.trigger("nightly")).id > 0


async def test_a_cron_that_was_triggered_twice_runs_twice(storage, nightly):
    first, second = await storage.crons.trigger("nightly"), await storage.crons.trigger("nightly")

    assert first.id != second.id


async def test_a_deleted_cron_leaves_its_jobs(storage, nightly, epoch):
    [answer] = await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch)

    await storage.crons.delete("nightly")

    assert await storage.crons.all() == []
    assert (await storage.jobs.get(answer.id)).state is State.PENDING


async def test_a_cron_that_belongs_to_somebody_is_changed_by_them_only(storage):
    await storage.crons.set(cron(), managed_by="operator/a")

    with pytest.raises(Managed):
        await storage.crons.set(cron(priority=9))
    with pytest.raises(Managed):
        await storage.crons.set(cron(priority=9), managed_by="operator/b")
    with pytest.raises(Managed):
        await storage.crons.delete("nightly")

    answer = await storage.crons.set(cron(priority=9), managed_by="operator/a")
    assert (answer.priority, answer.managed_by) == (9, "operator/a")


async def test_a_change_shows_in_the_next_heartbeat(storage):
    me = await worker(storage)
    before = (await storage.workers.beat(me)).revision

    await storage.crons.set(cron())

    assert (await storage.workers.beat(me)).revision != before


async def test_two_who_fire_at_once_enqueue_one_job(storage, another, nightly, epoch):
    storages = [storage, *[await another() for _ in range(4)]]

    answers = await asyncio.gather(
        *(mine.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch) for mine in storages)
    )

    assert sorted(len(answer) for answer in answers) == [0, 0, 0, 0, 1]
    assert len(await jobs(storage)) == 1


async def test_jobs_of_a_cron_are_claimed_like_all_others(storage, nightly, epoch):
    me = await worker(storage, kinds=("report",))
    await storage.fires.fire(nightly, [NIGHT, NIGHT + DAY], NIGHT + 2 * DAY, epoch=epoch)

    assert [one.kind for one in await claim(storage, me)] == ["report", "report"]
    assert (await queue(storage)).name == "default"


async def test_fire_times_are_forgotten_after_thirty_days(storage, database, nightly, epoch, clock):
    await clock.set(NIGHT)
    await storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch)
    await ended(storage, await worker(storage), priority=-1)

    await clock.advance(days=29)
    await storage.history.sweep(epoch=epoch)
    assert len(await database.rows("SELECT job_id FROM fire")) == 1

    await clock.advance(days=2)
    await storage.history.sweep(epoch=epoch)
    assert await database.rows("SELECT job_id FROM fire") == []


async def test_a_cron_whose_kind_is_sealed_by_now_enqueues_no_open_arguments(storage, epoch, nightly):
    await storage.crons.set(replace(nightly, payload=b'{"card": 1}'))
    await storage.kinds.declare([Kind("report", codec="sealed", redact=True, sealed=True)], by="a test")

    for call in (
        lambda: storage.fires.fire(nightly, [NIGHT], NIGHT + DAY, epoch=epoch),
        lambda: storage.crons.trigger("nightly"),
    ):
        with pytest.raises(
            InvalidInput, match=r"^Jobs of kind 'report' are sealed, and the payload is json; "
        ):
            await call()

    assert await jobs(storage) == []
    assert (await storage.crons.get("nightly")).next_fire_at == NIGHT


async def test_a_cron_whose_clock_was_set_back_fires_sooner_unless_it_was_changed_meanwhile(
    storage, nightly, epoch
):
    async def brought_forward(known, *, epoch=epoch):
        await storage.fires.bring_forward(known, NIGHT - DAY, epoch=epoch)
        return (await storage.crons.get("nightly")).next_fire_at

    assert await brought_forward(replace(nightly, next_fire_at=NIGHT + DAY)) == NIGHT
    assert await brought_forward(replace(nightly, expression="0 4 * * *")) == NIGHT
    assert await brought_forward(replace(nightly, timezone="Europe/Berlin")) == NIGHT
    assert await brought_forward(nightly, epoch=epoch - 1) == NIGHT
    assert await brought_forward(nightly) == NIGHT - DAY
