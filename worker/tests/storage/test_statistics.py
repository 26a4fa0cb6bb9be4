"""What processes have counted is added up, once each, and read without looking at jobs."""

from datetime import timedelta

import pytest

from forge_jobs.model.statistics import BUCKETS, Minute, Times
from tests.storage.factories import leader

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SEND, BILL = ("mail", "send"), ("default", "bill")


def a_minute(process=1, number=1, ago=MINUTE, **counts):
    """Return what a process counted of one kind in a minute; `counts` are by name, with __ for a colon."""
    named = {name.replace("__", ":"): count for name, count in counts.items()}
    return Minute(process, number, ago, {SEND: named})


async def test_what_processes_counted_is_summed_by_queue_and_kind(storage):
    one = a_minute(1, done=10, failed=2, wait__0=12, wait_us=6_000, run__5=12, run_us=300_000)
    other = Minute(2, 1, one.ago, {SEND: {"done": 5, "wait:0": 4, "wait:2": 1}, BILL: {"dead": 1}})
    for minute in (one, other):
        await storage.statistics.hand_in(minute)
    epoch = await leader(storage)

    for _ in range(2):  # before and after they are added up
        bill, send = await storage.statistics.summed(HOUR)
        assert (bill.queue, bill.kind, bill.outcomes, bill.runs) == ("default", "bill", {"dead": 1}, Times())
        assert (send.queue, send.kind, send.outcomes) == ("mail", "send", {"done": 15, "failed": 2})
        assert (send.waits.buckets[:3], send.waits.count, send.waits.seconds) == ((16, 0, 1), 17, 0.006)
        assert send.runs.mean == pytest.approx(0.025) and send.ended("done", "dead") == 15
        await storage.statistics.add_up(epoch=epoch)


async def test_a_minute_that_is_handed_in_twice_counts_once(storage):
    minute = a_minute(done=1)
    epoch = await leader(storage)
    await storage.statistics.hand_in(minute)
    await storage.statistics.hand_in(minute)
    assert await storage.statistics.add_up(epoch=epoch) == 1
    await storage.statistics.hand_in(minute)
    assert await storage.statistics.add_up(epoch=epoch) == 0

    [send] = await storage.statistics.summed(HOUR)

    assert send.outcomes == {"done": 1}


async def test_minutes_of_one_process_add_up(storage):
    epoch = await leader(storage)
    for number in (1, 2, 3):
        await storage.statistics.hand_in(a_minute(number=number, done=number))
        await storage.statistics.add_up(epoch=epoch)

    [send] = await storage.statistics.summed(HOUR)

    assert send.outcomes == {"done": 6}


async def test_more_than_is_added_up_at_once_is_left_for_the_next_time(storage):
    epoch = await leader(storage)
    for process in range(5):
        await storage.statistics.hand_in(a_minute(process, done=1))

    added = [await storage.statistics.add_up(epoch=epoch, limit=2) for _ in range(4)]

    assert added == [2, 2, 1, 0]
    [send] = await storage.statistics.summed(HOUR)
    assert send.outcomes == {"done": 5}


async def test_who_no_longer_leads_adds_nothing_up(storage, database):
    epoch = await leader(storage)
    await storage.statistics.hand_in(a_minute(done=1))
    assert await storage.statistics.add_up(epoch=epoch + 1) == 0
    assert await database.rows("SELECT queue FROM minute_statistic") == []


async def test_only_minutes_within_the_time_and_of_the_wanted_jobs_are_summed(storage):
    for number, ago in enumerate((2 * MINUTE, 30 * MINUTE, 3 * HOUR)):
        await storage.statistics.hand_in(a_minute(number=number, ago=ago, done=10**number))

    async def done(since, **wanted):
        return [one.outcomes["done"] for one in await storage.statistics.summed(since, **wanted)]

    assert await done(10 * MINUTE) == [1]
    assert await done(HOUR) == [11]
    assert await done(timedelta(days=1), queue="mail", kind="send") == [111]
    assert await done(timedelta(days=1), queue="default") == []
    assert await done(timedelta(days=1), kind="bill") == []


@pytest.mark.parametrize("seconds", [6, 30, 59])
async def test_the_last_minute_is_within_the_last_minute(storage, clock, seconds):
    await clock.set((await clock.freeze()).replace(second=seconds))
    await storage.statistics.hand_in(a_minute(ago=timedelta(seconds=seconds + 30), done=7))

    [found] = await storage.statistics.summed(MINUTE)

    assert found.outcomes == {"done": 7}
    assert found.at == clock.now().replace(second=0, microsecond=0) - MINUTE


async def test_each_stretch_of_time_may_have_a_sum_of_its_own(storage):
    now = await storage.now()
    base = (now - 2 * HOUR).replace(minute=0, second=0, microsecond=0)
    for number, minutes in enumerate((0, 4, 5, 11)):
        ago = now - (base + minutes * MINUTE)
        await storage.statistics.hand_in(a_minute(number=number, ago=ago, done=10**number))

    found = await storage.statistics.summed(5 * HOUR, every=5 * MINUTE)

    assert [(one.at - base, one.outcomes["done"]) for one in found] == [
        (timedelta(0), 11),
        (5 * MINUTE, 100),
        (10 * MINUTE, 1000),
    ]


async def test_statistics_are_kept_for_thirty_days(storage, clock, database):
    epoch = await leader(storage)
    await storage.statistics.hand_in(a_minute(done=1))
    await storage.statistics.add_up(epoch=epoch)
    await clock.advance(days=29)
    await storage.statistics.add_up(epoch=epoch)
    assert len(await storage.statistics.summed(timedelta(days=30))) == 1
    assert await database.rows("SELECT queue FROM handed_in") == []

    await clock.advance(days=2)
    await storage.statistics.add_up(epoch=epoch)

    assert await storage.statistics.summed(timedelta(days=60)) == []


def test_quantiles_lie_within_their_buckets():
    buckets = [0] * (len(BUCKETS) + 1)
    buckets[3], buckets[6] = 90, 10  # up to 10 ms, and up to 100 ms
    times = Times(tuple(buckets), 1.2)

    assert (times.count, times.mean) == (100, 0.012)
    assert times.quantile(0.45) == 0.0075
    assert times.quantile(0.9) == 0.01
    assert times.quantile(0.95) == pytest.approx(0.075)
    assert times.quantile(1.0) == 0.1
    assert (Times().quantile(0.5), Times().mean) == (None, None)


def test_of_what_took_more_than_an_hour_only_that_is_said():
    assert Times((0,) * len(BUCKETS) + (3,), 20_000.0).quantile(0.5) == 3600.0
