"""Who is silent, as one reaper saw it: heartbeats every 5 seconds, stale after 30, a look every 2.5."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs.errors import StorageDown, StorageUnavailable
from forge_jobs.maintenance.sightings import Sightings
from forge_jobs.maintenance.silence_clock import SilenceClock
from forge_jobs.model.worker import Beats

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
ME, OTHER = 1, 2
HOUR = 3600.0

Clock = Callable[[float], float]
"""How many seconds the database's clock shows after noon, at a moment of the reaper's own clock."""


def right(at: float) -> float:
    return at


def steps(at: float, by: float) -> Clock:
    """Return a clock that is set forward by so much at a moment, or back."""
    return lambda moment: moment + (by if moment >= at else 0.0)


def lost_at(
    last_beat: float | None,
    *,
    until: float,
    clock: Clock = right,
    since: float = 0.0,
    away: tuple[float, float] = (0.0, 0.0),
    who: int = OTHER,
    watch: Sightings | None = None,
) -> float | None:
    """Return when a worker is found silent that beats every 5 seconds, for the last time at `last_beat` (None: for ever).

    The reaper looks from `since` on. While the database is away, nobody beats and nobody looks.
    """
    watch = watch or Sightings(ME, heartbeat=timedelta(seconds=5), stale=timedelta(seconds=30))
    beat_at = NOON + timedelta(seconds=clock(0.0))
    moment = 0.0
    while moment <= until:
        is_away = away[0] <= moment < away[1]
        if moment % 5 == 0 and (last_beat is None or moment <= last_beat) and not is_away:
            beat_at = NOON + timedelta(seconds=clock(moment))
        if moment >= since and not is_away:
            beats = Beats(NOON + timedelta(seconds=clock(moment)), {who: beat_at})
            if watch.silent(beats, moment) == {who: beat_at}:
                return moment
        moment += 2.5
    return None


def test_who_stops_beating_is_silent_after_the_stale_time() -> None:
    assert lost_at(100, until=300) == 130


def test_who_beats_is_never_silent() -> None:
    assert lost_at(None, until=HOUR) is None


def test_a_reaper_is_not_silent_to_itself() -> None:
    assert lost_at(0, until=HOUR, who=ME) is None


@pytest.mark.parametrize("by", [HOUR, -HOUR, 31.0, -31.0, 20.0])
@pytest.mark.parametrize("at", [52.5, 55.0, 57.5])
def test_a_clock_that_is_set_forward_or_back_makes_nobody_silent(at: float, by: float) -> None:
    assert lost_at(None, until=200, clock=steps(at, by)) is None


@pytest.mark.parametrize("by", [HOUR, -HOUR])
@pytest.mark.parametrize("at", [90.0, 100.0, 102.5, 120.0])
def test_a_clock_that_is_set_forward_or_back_hides_nobodys_death(at: float, by: float) -> None:
    found = lost_at(100, until=300, clock=steps(at, by))

    assert found is not None
    assert 130 <= found <= 140


@pytest.mark.parametrize("since", [100.0, 102.5, 110.0, 120.0, 130.0, 170.0, 500.0])
def test_a_reaper_that_begins_finds_those_who_died_before_within_two_heartbeats(since: float) -> None:
    found = lost_at(100, until=1000, since=since)

    assert found is not None
    assert max(130, since) <= found <= max(130, since) + 10


@pytest.mark.parametrize("by", [HOUR, -HOUR])
@pytest.mark.parametrize("since", [100.0, 102.5, 105.0])
def test_a_reaper_that_begins_when_the_clock_was_set_takes_nobody_for_dead(since: float, by: float) -> None:
    assert lost_at(None, until=300, since=since, clock=steps(99, by)) is None


@pytest.mark.parametrize("by", [0.0, HOUR, -HOUR])
@pytest.mark.parametrize("length", [4.0, 11.0, 20.0, 26.0])
@pytest.mark.parametrize("since", [0.0, 100.0])
def test_after_an_outage_and_on_a_host_with_another_clock_who_beats_again_is_not_silent(
    since: float, length: float, by: float
) -> None:
    found = lost_at(None, until=300, since=since, clock=steps(101, by), away=(101, 101 + length))

    assert found is None


def test_a_beat_from_the_future_is_no_sign_of_life() -> None:
    found = lost_at(100, until=300, since=110, clock=steps(101, -HOUR))

    assert found is not None
    assert found <= 140


def test_who_was_seen_before_others_led_need_not_be_watched_anew() -> None:
    watch = Sightings(ME, heartbeat=timedelta(seconds=5), stale=timedelta(seconds=30))
    assert lost_at(100, until=102.5, watch=watch) is None

    assert lost_at(100, until=200, since=140, clock=steps(101, -HOUR), watch=watch) == 140


def test_silence_counts_only_while_the_database_answers() -> None:
    """Nobody could beat for ten minutes; then one is back after 29 seconds, and one is not."""
    now = 0.0
    clock = SilenceClock(lambda: now)
    watch = Sightings(ME, heartbeat=timedelta(seconds=5), stale=timedelta(seconds=30))
    found: dict[float, set[int]] = {}
    for moment in (*range(0, 100, 2), *range(700, 760, 1)):
        now = float(moment)
        if moment == 700:
            clock.unanswered()
            continue
        clock.answered()
        back = moment >= 729
        beats = {OTHER: min(moment, 98), 3: moment if moment < 99 or back else 98}
        seen = Beats(
            NOON + timedelta(seconds=moment),
            {worker: NOON + timedelta(seconds=at) for worker, at in beats.items()},
        )
        found[now] = set(watch.silent(seen, clock.seconds, clock.unbroken_since))

    first = min(moment for moment, silent in found.items() if silent)
    assert 730 <= first <= 732
    assert set().union(*found.values()) == {OTHER}


@pytest.mark.parametrize("away", [20.0, 600.0])
def test_who_begins_to_look_when_an_outage_is_over_waits_the_whole_stale_time(away: float) -> None:
    now = 0.0
    clock = SilenceClock(lambda: now)
    watch = Sightings(ME, heartbeat=timedelta(seconds=5), stale=timedelta(seconds=30))
    last = NOON - timedelta(seconds=away)

    def is_silent_at(moment: float) -> bool:
        nonlocal now
        now = moment
        clock.answered()
        beats = Beats(NOON + timedelta(seconds=moment), {OTHER: last})
        return bool(watch.silent(beats, clock.seconds, clock.unbroken_since))

    assert [moment for moment in range(0, 40, 2) if is_silent_at(moment)][:1] == [30]


def test_a_database_that_fails_now_and_then_hides_nobodys_death() -> None:
    now = 0.0
    clock = SilenceClock(lambda: now)
    watch = Sightings(ME, heartbeat=timedelta(seconds=5), stale=timedelta(seconds=30))

    def is_silent_at(moment: float) -> bool:
        nonlocal now
        now = moment
        clock.unanswered() if moment % 10 == 0 else clock.answered()
        beats = Beats(NOON + timedelta(seconds=moment), {OTHER: NOON})
        return bool(watch.silent(beats, clock.seconds, clock.unbroken_since))

    assert any(is_silent_at(float(moment)) for moment in range(60))


@pytest.mark.parametrize(
    ("times", "what", "found"),
    [
        ((), "", 30),
        ((20,), "a restart", 50),  # between two looks
        ((20,), "down", 52),
        ((20,), "a failure", 34),
        (range(20, 40, 2), "a failure", 70),  # for longer than anybody who lives would be silent
        (range(20, 400, 20), "down", None),
        (range(20, 400, 20), "a restart", None),
        (range(20, 400, 10), "a failure", 38),
    ],
)
def test_who_was_silent_before_nobody_could_use_the_database_has_the_whole_stale_time_after_it(
    times: Iterable[int], what: str, found: int | None
) -> None:
    now = 0.0
    clock = SilenceClock(lambda: now)
    watch = Sightings(ME, heartbeat=timedelta(seconds=5), stale=timedelta(seconds=30))
    life = 1

    def is_silent_at(moment: int) -> bool:
        nonlocal now, life
        now = float(moment)
        if moment in times:
            if what != "a restart":
                clock.unanswered(StorageDown("down") if what == "down" else StorageUnavailable("away"))
                return False
            life += 1
        clock.answered(str(life))
        beats = Beats(NOON + timedelta(seconds=moment), {OTHER: NOON})
        return bool(watch.silent(beats, clock.seconds, clock.unbroken_since, clock.up_since))

    assert next((moment for moment in range(0, 400, 2) if is_silent_at(moment)), None) == found


def test_that_somebody_may_be_lost_is_known_once_two_beats_should_have_come() -> None:
    watch = Sightings(ME, heartbeat=timedelta(seconds=5), stale=timedelta(seconds=30))

    def is_overdue(after: float, who: int = OTHER) -> bool:
        return watch.is_overdue(Beats(NOON + timedelta(seconds=after), {who: NOON}))

    assert [is_overdue(after) for after in (0, 5, 7, 7.5, -HOUR)] == [False, False, False, True, True]
    assert not is_overdue(HOUR, ME)
