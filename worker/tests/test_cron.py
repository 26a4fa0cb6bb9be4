from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_jobs.errors import InvalidCron
from forge_jobs.model.cron import CronConfig, Missed
from forge_jobs.rules.cron_expression import Fields
from forge_jobs.rules.cron_expression import parse as parse_fields
from forge_jobs.rules.cron_times import due, parse
from tests.cron_fields import matches

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
ZONES = (BERLIN, NEW_YORK, LORD_HOWE, "Africa/Casablanca", "Asia/Kolkata", "UTC")
MINUTE = timedelta(minutes=1)


def local(text: str, zone: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def fires(expression: str, zone: str, after: str, count: int) -> list[str]:
    """Return the next fires in local time, with the offset."""
    cron, moment, found = parse(expression, zone), local(after, zone), []
    for _ in range(count):
        moment = cron.next_after(moment)
        found.append(moment.astimezone(ZoneInfo(zone)).isoformat(" ", "minutes"))
    return found


# Where the clock is set forward: 2026-03-29 02:00 in Berlin, 03-08 02:00 in New York, both by an
# hour; 10-04 02:00 on Lord Howe Island, by half an hour.


@pytest.mark.parametrize(
    ("zone", "expression", "eve", "moved"),
    [
        (BERLIN, "30 2 * * *", "2026-03-28 12:00", "2026-03-29 03:00+02:00"),
        (BERLIN, "0 2 * * *", "2026-03-28 12:00", "2026-03-29 03:00+02:00"),
        (NEW_YORK, "30 2 * * *", "2026-03-07 12:00", "2026-03-08 03:00-04:00"),
        (LORD_HOWE, "15 2 * * *", "2026-10-03 12:00", "2026-10-04 02:30+11:00"),
    ],
)
def test_a_local_time_that_is_skipped_fires_once_at_the_end_of_the_gap(
    zone: str, expression: str, eve: str, moved: str
) -> None:
    first, second = fires(expression, zone, eve, 2)
    assert first == moved
    assert second[:10] > moved[:10]


def test_several_skipped_times_fire_once_together() -> None:
    assert fires("0,15,30 2,3 * * *", BERLIN, "2026-03-29 01:00", 3) == [
        "2026-03-29 03:00+02:00",
        "2026-03-29 03:15+02:00",
        "2026-03-29 03:30+02:00",
    ]


def test_a_gap_of_half_an_hour_moves_only_what_is_in_it() -> None:
    assert fires("20,40 2 * * *", LORD_HOWE, "2026-10-04 00:00", 3) == [
        "2026-10-04 02:30+11:00",
        "2026-10-04 02:40+11:00",
        "2026-10-05 02:20+11:00",
    ]


def test_every_hour_makes_up_for_nothing_in_a_gap() -> None:
    assert fires("30 * * * *", BERLIN, "2026-03-29 00:40", 3) == [
        "2026-03-29 01:30+01:00",
        "2026-03-29 03:30+02:00",
        "2026-03-29 04:30+02:00",
    ]
    assert fires("15 * * * *", LORD_HOWE, "2026-10-04 01:00", 2) == [
        "2026-10-04 01:15+10:30",
        "2026-10-04 03:15+11:00",
    ]


def test_a_day_that_a_zone_left_out_fires_at_the_first_instant_of_the_next() -> None:
    assert fires("0 12 * * *", "Pacific/Apia", "2011-12-29 00:00", 3) == [
        "2011-12-29 12:00-10:00",
        "2011-12-31 00:00+14:00",
        "2011-12-31 12:00+14:00",
    ]


# Where the clock is set back: 2026-10-25 03:00 in Berlin, 11-01 02:00 in New York, both by an hour;
# 04-05 02:00 on Lord Howe Island, by half an hour.


@pytest.mark.parametrize(
    ("zone", "expression", "eve", "once", "next_day"),
    [
        (BERLIN, "30 2 * * *", "2026-10-24 12:00", "2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"),
        (NEW_YORK, "30 1 * * *", "2026-10-31 12:00", "2026-11-01 01:30-04:00", "2026-11-02 01:30-05:00"),
        (LORD_HOWE, "45 1 * * *", "2026-04-04 12:00", "2026-04-05 01:45+11:00", "2026-04-06 01:45+10:30"),
    ],
)
def test_a_local_time_that_comes_twice_fires_the_first_time_only(
    zone: str, expression: str, eve: str, once: str, next_day: str
) -> None:
    assert fires(expression, zone, eve, 2) == [once, next_day]


def test_in_the_second_pass_of_an_hour_its_times_have_fired_already() -> None:
    cron = parse("0,30 2,3 * * *", BERLIN)
    for minute in (0, 15, 59):
        second_pass = local(f"2026-10-25 02:{minute:02}", BERLIN, fold=1)
        assert cron.next_after(second_pass) == local("2026-10-25 03:00", BERLIN)
        assert cron.fires_between(second_pass - timedelta(days=1), second_pass, 1) == [
            local("2026-10-25 02:30", BERLIN).astimezone(UTC)
        ]


def test_every_hour_fires_in_both_passes() -> None:
    assert fires("30 * * * *", BERLIN, "2026-10-25 01:40", 3) == [
        "2026-10-25 02:30+02:00",
        "2026-10-25 02:30+01:00",
        "2026-10-25 03:30+01:00",
    ]
    assert fires("*/15 */1 * * *", LORD_HOWE, "2026-04-05 01:40", 4) == [
        "2026-04-05 01:45+11:00",
        "2026-04-05 01:30+10:30",
        "2026-04-05 01:45+10:30",
        "2026-04-05 02:00+10:30",
    ]


def test_without_a_zone_a_cron_is_in_utc() -> None:
    assert parse("30 2 * * *").next_after(datetime(2026, 3, 29, tzinfo=UTC)) == datetime(
        2026, 3, 29, 2, 30, tzinfo=UTC
    )


def test_a_fire_is_given_in_utc() -> None:
    fire = parse("0 12 * * *", BERLIN).next_after(local("2026-01-01 00:00", NEW_YORK))
    assert fire == datetime(2026, 1, 1, 11, tzinfo=UTC)
    assert fire.tzinfo is UTC


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "Mars/Base",
        "../etc/passwd",
        "/etc/localtime",
        "Europe",
        "localtime",
        "right/UTC",
        "a\0b",
        "\ud800",
        "x" * 5000,
    ],
)
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(
        InvalidCron, match=r"^The time zone is .*, allowed is an IANA name such as UTC or Europe/Berlin\.$"
    ):
        parse("@daily", zone)


@pytest.mark.parametrize(
    ("expression", "zone"), [(None, "UTC"), ("@daily", None), (["@daily"], "UTC"), (5, 5)]
)
def test_what_is_no_text_is_refused(expression: Any, zone: Any) -> None:
    with pytest.raises(InvalidCron, match="allowed are two texts"):
        parse(expression, zone)


def test_a_moment_without_a_zone_is_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="a datetime with a time zone"):
        parse("@daily").next_after(datetime(2026, 1, 1))


def test_the_end_of_time_is_one_sentence() -> None:
    with pytest.raises(InvalidCron, match=r"^The cron expression '@yearly' never fires after 9998-06-01\.$"):
        parse("@yearly").next_after(datetime(9998, 6, 1, tzinfo=UTC))


# Against the definition, second by second and minute by minute


def by_definition(fields: Fields, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Return all fires of whole minutes in [start, end), by looking at every minute."""
    minutes = [start + count * MINUTE for count in range(int((end - start) / MINUTE))]
    clock = [minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for minute in minutes]
    if fields.every_hour:
        return [minute for minute, shown in zip(minutes, clock, strict=True) if matches(fields, shown)]
    found = set()
    shown_until_now = clock[0] - MINUTE
    for minute, shown in zip(minutes, clock, strict=True):
        passed = shown_until_now + MINUTE
        while passed <= shown:  # more than one where the clock was set forward, none where it was set back
            if matches(fields, passed):
                found.add(minute)
            passed += MINUTE
        shown_until_now = max(shown_until_now, shown)
    return sorted(found)


def values(least: int, most: int) -> st.SearchStrategy[str]:
    some = st.lists(st.integers(least, most), min_size=1, max_size=4).map(
        lambda each: ",".join(map(str, each))
    )
    return st.just("*") | st.integers(1, most).map(lambda step: f"*/{step}") | some


expressions = st.tuples(
    values(0, 59), st.just("*") | values(0, 4), st.just("*"), st.just("*"), st.just("*") | values(0, 6)
)
changes = st.sampled_from(
    [
        (BERLIN, "2026-03-28 20:00"),
        (BERLIN, "2026-10-24 20:00"),
        (NEW_YORK, "2026-03-07 20:00"),
        (NEW_YORK, "2026-10-31 20:00"),
        (LORD_HOWE, "2026-10-03 20:00"),
        (LORD_HOWE, "2026-04-04 20:00"),
        ("America/Havana", "2026-03-07 20:00"),  # set forward at midnight
        ("America/Havana", "2026-10-31 20:00"),
        ("Atlantic/Azores", "2026-10-24 20:00"),  # set back over midnight
        ("Africa/Casablanca", "2026-02-14 20:00"),
        ("Europe/Dublin", "2026-03-28 20:00"),  # winter time is the exception there
        ("Asia/Kolkata", "2026-05-01 20:00"),
    ]
)


@settings(deadline=None)
@given(fields=expressions, change=changes)
def test_around_a_change_of_the_clock_all_fires_are_those_of_the_definition(
    fields: tuple[str, ...], change: tuple[str, str]
) -> None:
    expression, (zone, eve) = " ".join(fields), change
    start = local(eve, zone).astimezone(UTC)
    end = start + timedelta(hours=16)
    wanted = by_definition(parse_fields(expression), zone, start, end)
    cron = parse(expression, zone)

    forwards, moment = [], start - timedelta(seconds=1)
    while (moment := cron.next_after(moment)) < end:
        forwards.append(moment)

    assert forwards == wanted
    before = start - timedelta(seconds=1)
    assert cron.fires_between(before, end - timedelta(seconds=1), 10_000) == wanted
    for index in range(0, len(wanted), 7):
        assert cron.fires_between(before, wanted[index], 3) == wanted[max(0, index - 2) : index + 1]


@settings(deadline=None)
@given(
    fields=st.tuples(values(0, 59), values(0, 23), values(1, 28), values(1, 12), values(0, 6)),
    zone=st.sampled_from(ZONES),
    moment=st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1)),
    microsecond=st.integers(0, 999_999),
)
def test_the_next_fire_is_later_and_a_local_time_that_matches_or_the_end_of_a_gap(
    fields: tuple[str, ...], zone: str, moment: datetime, microsecond: int
) -> None:
    cron, after = parse(" ".join(fields), zone), moment.replace(microsecond=microsecond, tzinfo=UTC)

    fire = cron.next_after(after)

    assert fire > after
    shown = fire.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    a_second_ago = (fire - timedelta(seconds=1)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    after_a_gap = shown - a_second_ago > timedelta(seconds=1)
    assert matches(parse_fields(" ".join(fields)), shown) or after_a_gap
    assert cron.fires_between(after, fire, 5) == [fire]
    assert cron.fires_between(after, fire - timedelta(microseconds=1), 5) == []


@settings(deadline=None)
@given(fields=expressions, change=changes)
def test_no_local_time_fires_twice_unless_every_hour_does(
    fields: tuple[str, ...], change: tuple[str, str]
) -> None:
    expression, (zone, eve) = " ".join(fields), change
    if parse_fields(expression).every_hour:
        return
    start = local(eve, zone)

    found = parse(expression, zone).fires_between(start, start + timedelta(days=2), 10_000)

    shown = [fire.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for fire in found]
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("change", ["2026-03-29 01:00", "2026-10-25 01:00"])
def test_every_second_misses_none_where_the_clock_is_set(change: str) -> None:
    cron, instant = parse("* * * * * *", BERLIN), local(change, "UTC").astimezone(UTC)
    wanted = [instant + timedelta(seconds=count) for count in range(-3, 4)]

    found = cron.fires_between(wanted[0] - timedelta(seconds=1), wanted[-1], 10)

    assert found == wanted
    assert [cron.next_after(second) for second in wanted[:-1]] == wanted[1:]


@pytest.mark.parametrize("change", ["2026-03-29 01:00", "2026-10-25 01:00"])
def test_the_second_before_the_clock_is_set_is_not_missed_afterwards(change: str) -> None:
    cron, instant = parse("59 59 * * * *", BERLIN), local(change, "UTC").astimezone(UTC)
    last = instant - timedelta(seconds=1)

    assert cron.fires_between(instant - timedelta(hours=1), instant + timedelta(minutes=30), 10) == [last]
    assert cron.next_after(instant - timedelta(minutes=30)) == last


def test_a_year_of_missed_seconds_is_passed_over() -> None:
    # A walk over all 31 million of them would run into the limit on a test's time many times over.
    now = datetime(2026, 7, 1, tzinfo=UTC)
    for zone in ZONES:
        cron = parse("* * * * * *", zone)
        found = cron.fires_between(now - timedelta(days=365), now, 3)
        assert found == [now - timedelta(seconds=back) for back in (2, 1, 0)]


# What is due


NOW = datetime(2026, 7, 1, 12, 0, 30, tzinfo=UTC)


def at(hour: int, minute: int, second: int = 0) -> datetime:
    return datetime(2026, 7, 1, hour, minute, second, tzinfo=UTC)


def hourly(**facts: Any) -> CronConfig:
    return replace(CronConfig("report", "0 * * * *", "report"), **facts)


def test_a_new_cron_fires_nothing_and_learns_its_next_fire() -> None:
    for missed in Missed:
        assert due(hourly(missed=missed), NOW) == ([], at(13, 0))


def test_a_cron_whose_time_has_not_come_fires_nothing() -> None:
    assert due(hourly(next_fire_at=at(12, 1)), NOW) == ([], at(12, 1))


@pytest.mark.parametrize("missed", Missed)
@pytest.mark.parametrize("now", [at(12, 0), at(12, 0, 30), at(12, 1)])
def test_a_fire_that_is_due_now_is_fired_whatever_the_policy(missed: Missed, now: datetime) -> None:
    assert due(hourly(next_fire_at=at(12, 0), missed=missed), now) == ([at(12, 0)], at(13, 0))


@pytest.mark.parametrize(
    ("missed", "fired"),
    [
        (Missed.SKIP, [at(12, 0)]),
        (Missed.LATEST, [at(12, 0)]),
        (Missed.ALL, [at(10, 0), at(11, 0), at(12, 0)]),
    ],
)
def test_of_several_fires_the_policy_chooses(missed: Missed, fired: list[datetime]) -> None:
    config = hourly(next_fire_at=at(8, 0), missed=missed, missed_limit=3)
    assert due(config, NOW) == (fired, at(13, 0))


@pytest.mark.parametrize(
    ("missed", "fired"),
    [(Missed.SKIP, []), (Missed.LATEST, [at(12, 0)]), (Missed.ALL, [at(11, 0), at(12, 0)])],
)
def test_a_fire_more_than_a_minute_late_is_missed(missed: Missed, fired: list[datetime]) -> None:
    config = hourly(next_fire_at=at(11, 0), missed=missed)
    assert due(config, at(12, 1) + timedelta(microseconds=1)) == (fired, at(13, 0))


@pytest.mark.parametrize(
    ("missed", "fired"), [(Missed.LATEST, [at(12, 0)]), (Missed.ALL, [at(11, 0), at(12, 0)])]
)
def test_fires_that_are_older_than_is_made_up_for_are_dropped(missed: Missed, fired: list[datetime]) -> None:
    config = hourly(next_fire_at=at(8, 0), missed=missed, missed_within=timedelta(hours=1, minutes=30))

    assert due(config, at(12, 0, 30))[0] == fired
    assert due(config, at(12, 59))[0] == [at(12, 0)]


def test_no_fire_is_made_up_for_that_is_older_than_that() -> None:
    config = hourly(next_fire_at=at(8, 0), missed_within=timedelta(minutes=10))

    assert due(config, at(8, 11)) == ([], at(9, 0))


def test_a_cron_of_every_second_fires_all_of_the_last_minute_when_missed_ones_are_skipped() -> None:
    config = CronConfig("tick", "* * * * * *", "tick", missed=Missed.SKIP, next_fire_at=at(12, 0, 0))
    assert due(config, at(12, 0, 3))[0] == [at(12, 0, second) for second in range(4)]
    fired, following = due(replace(config, next_fire_at=at(2, 0)), at(12, 0))
    assert (fired[0], len(fired), following) == (at(11, 59), 61, at(12, 0, 1))


def test_all_fires_are_never_fewer_than_the_newest() -> None:
    config = hourly(next_fire_at=at(8, 0), missed=Missed.ALL, missed_limit=0)
    assert due(config, NOW)[0] == [at(12, 0)]


def test_a_clock_set_back_fires_nothing_again() -> None:
    fired, following = due(hourly(next_fire_at=at(12, 0)), NOW)
    assert fired == [at(12, 0)]
    assert due(hourly(next_fire_at=following), NOW - timedelta(hours=3)) == ([], following)


def test_a_cron_in_a_zone_is_due_by_its_local_time() -> None:
    config = CronConfig(
        "report", "30 2 * * *", "report", timezone=BERLIN, next_fire_at=local("2026-03-29 03:00", BERLIN)
    )
    fired, following = due(config, local("2026-03-29 03:00", BERLIN))
    assert fired == [datetime(2026, 3, 29, 1, tzinfo=UTC)]
    assert following == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)


def test_an_expression_gone_bad_is_said_when_it_is_due() -> None:
    with pytest.raises(InvalidCron, match="The minute"):
        due(CronConfig("report", "61 * * * *", "report", next_fire_at=at(12, 0)), NOW)
