from datetime import datetime, timedelta
from typing import Any

import pytest
from croniter import croniter
from hypothesis import assume, given
from hypothesis import strategies as st

from forge_jobs.errors import InvalidCron
from forge_jobs.rules.cron_expression import Fields, parse
from tests.cron_fields import matches

START = datetime(2026, 1, 1)


def times(expression: str, count: int, start: datetime = START) -> list[str]:
    fields, moment, found = parse(expression), start, []
    for _ in range(count):
        moment = fields.after(moment) or datetime.max
        found.append(moment.strftime("%a %d %b %Y %H:%M:%S"))
    return found


def days(expression: str, count: int, start: datetime = START) -> list[str]:
    return [each[:-9] for each in times(expression, count, start)]


def refusal(expression: Any) -> str:
    with pytest.raises(InvalidCron) as caught:
        parse(expression)
    return str(caught.value)


def items(least: int, most: int) -> st.SearchStrategy[str]:
    value = st.integers(least, most)
    step = st.integers(1, most)
    forward = st.tuples(value, value).filter(lambda pair: pair[0] < pair[1])
    return st.one_of(
        st.just("*"),
        value.map(str),
        step.map(lambda each: f"*/{each}"),
        forward.map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.tuples(forward, step).map(lambda each: f"{each[0][0]}-{each[0][1]}/{each[1]}"),
        st.tuples(value, value)
        .filter(lambda pair: pair[0] > pair[1])
        .map(lambda pair: f"{pair[0]}-{pair[1]}"),
    )


def parts(least: int, most: int) -> st.SearchStrategy[str]:
    return st.lists(items(least, most), min_size=1, max_size=2).map(",".join)


expressions = st.tuples(
    st.just("0") | parts(0, 59), parts(0, 59), parts(0, 23), parts(1, 31), parts(1, 12), parts(0, 7)
).map(" ".join)

moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1))


def parsed(expression: str) -> Fields:
    try:
        return parse(expression)
    except InvalidCron as error:
        assume("no day that ever comes" not in str(error))
        raise


def test_five_fields_are_minute_hour_day_month_and_weekday() -> None:
    assert times("30 4 1 2 *", 2) == ["Sun 01 Feb 2026 04:30:00", "Mon 01 Feb 2027 04:30:00"]


def test_six_fields_begin_with_seconds() -> None:
    assert times("15 30 4 1 2 *", 1) == ["Sun 01 Feb 2026 04:30:15"]
    assert times("*/20 * * * * *", 3) == [f"Thu 01 Jan 2026 00:0{each}" for each in ("0:20", "0:40", "1:00")]


@pytest.mark.parametrize(
    ("alias", "first"),
    [
        ("@hourly", "Thu 01 Jan 2026 01:00:00"),
        ("@daily", "Fri 02 Jan 2026 00:00:00"),
        ("@midnight", "Fri 02 Jan 2026 00:00:00"),
        ("@weekly", "Sun 04 Jan 2026 00:00:00"),
        ("@monthly", "Sun 01 Feb 2026 00:00:00"),
        ("@yearly", "Fri 01 Jan 2027 00:00:00"),
        (" @Annually ", "Fri 01 Jan 2027 00:00:00"),
    ],
)
def test_an_alias_stands_for_its_fields(alias: str, first: str) -> None:
    assert times(alias, 1) == [first]


@pytest.mark.parametrize("weekday", ["0", "7", "sun", "SUN", "0,7", "sun,7"])
def test_zero_and_seven_are_both_sunday(weekday: str) -> None:
    assert days(f"0 0 * * {weekday}", 2) == ["Sun 04 Jan 2026", "Sun 11 Jan 2026"]


@pytest.mark.parametrize("weekdays", ["fri-mon", "5-1", "5-7,1", "fri,sat,sun,mon"])
def test_a_range_of_weekdays_may_run_over_the_end_of_the_week(weekdays: str) -> None:
    assert [each[:3] for each in days(f"0 0 * * {weekdays}", 5)] == ["Fri", "Sat", "Sun", "Mon", "Fri"]


@pytest.mark.parametrize("low", range(7))
@pytest.mark.parametrize("step", range(1, 8))
def test_a_range_up_to_seven_ends_with_sunday(low: int, step: int) -> None:
    fields = parse(f"0 0 * * {low}-7/{step}")
    wanted = {each % 7 for each in range(low, 8, step)}
    # "0-7" begins and ends with Sunday; counting goes from the first.
    assert (fields.weekdays or frozenset(range(7))) == (set(range(0, 7, step)) if low == 0 else wanted)


def test_hours_may_run_over_midnight() -> None:
    assert parse("0 22-4 * * *").hours == (0, 1, 2, 3, 4, 22, 23)


def test_months_have_names() -> None:
    assert days("0 0 1 jan,NOV-feb *", 4) == [
        "Sun 01 Feb 2026",
        "Sun 01 Nov 2026",
        "Tue 01 Dec 2026",
        "Fri 01 Jan 2027",
    ]


def test_a_day_that_either_field_allows_is_allowed_when_both_restrict() -> None:
    assert days("0 0 13 * fri", 4) == [
        "Fri 02 Jan 2026",
        "Fri 09 Jan 2026",
        "Tue 13 Jan 2026",
        "Fri 16 Jan 2026",
    ]


@pytest.mark.parametrize("day", ["*", "*/1", "1-31", "?"])
def test_a_field_that_allows_every_day_does_not_restrict(day: str) -> None:
    assert days(f"0 0 {day} * mon", 2) == ["Mon 05 Jan 2026", "Mon 12 Jan 2026"]
    assert days(f"0 0 5 * {day if day in '*?' else '0-6'}", 2) == ["Mon 05 Jan 2026", "Thu 05 Feb 2026"]


def test_the_last_day_of_a_month_is_l() -> None:
    assert days("0 0 L * *", 3) == ["Sat 31 Jan 2026", "Sat 28 Feb 2026", "Tue 31 Mar 2026"]
    assert days("0 0 15,l 2 *", 3) == ["Sun 15 Feb 2026", "Sat 28 Feb 2026", "Mon 15 Feb 2027"]


def test_the_last_weekday_of_its_kind_is_l_and_the_weekday() -> None:
    assert days("0 0 * * L5", 2) == ["Fri 30 Jan 2026", "Fri 27 Feb 2026"]
    assert days("0 0 * * l7", 1) == ["Sun 25 Jan 2026"]


def test_a_weekday_may_be_numbered_in_its_month() -> None:
    assert days("0 0 * * mon#1,3#2", 3) == ["Mon 05 Jan 2026", "Wed 14 Jan 2026", "Mon 02 Feb 2026"]
    assert days("0 0 * * 5#5", 2) == ["Fri 30 Jan 2026", "Fri 29 May 2026"]
    assert days("0 0 10 * mon#1", 2) == ["Mon 05 Jan 2026", "Sat 10 Jan 2026"]


def test_a_leap_day_comes_though_it_is_far() -> None:
    assert days("0 0 29 2 *", 3, datetime(2093, 1, 1)) == [
        "Wed 29 Feb 2096",
        "Fri 29 Feb 2104",
        "Wed 29 Feb 2108",
    ]
    assert days("0 0 * 2 mon#5", 1, datetime(2072, 3, 1)) == ["Mon 29 Feb 2112"]


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31 feb *", "0 0 0 30-31 2 ?"])
def test_a_day_that_never_comes_is_refused(expression: str) -> None:
    assert "names no day that ever comes; allowed are five fields" in refusal(expression)


def test_an_impossible_day_does_not_rule_out_the_weekday() -> None:
    assert days("0 0 30 2 mon", 2) == ["Mon 02 Feb 2026", "Mon 09 Feb 2026"]


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("second", "60 * * * * *"),
        ("minute", "60 * * * *"),
        ("minute", "-1 * * * *"),
        ("minute", "5-5 * * * *"),
        ("minute", "*/0 * * * *"),
        ("minute", "*/90 * * * *"),
        ("minute", "50-10/7 * * * *"),
        ("minute", "1,,2 * * * *"),
        ("minute", ", * * * *"),
        ("minute", "mon * * * *"),
        ("minute", "? * * * *"),
        ("minute", "1.5 * * * *"),
        ("minute", "R * * * *"),
        ("minute", "H * * * *"),
        ("minute", "h(0-5)/2 * * * *"),
        ("minute", "0x1 * * * *"),
        ("hour", "0 24 * * *"),
        ("hour", "0 0-24 * * *"),
        ("day", "0 0 0 * *"),
        ("day", "0 0 32 * *"),
        ("day", "0 0 15w * *"),
        ("day", "0 0 L-3 * *"),
        ("day", "0 0 ?,1 * *"),
        ("month", "0 0 * 0 *"),
        ("month", "0 0 * 13 *"),
        ("month", "0 0 * mon *"),
        ("month", "0 0 * foo *"),
        ("month", "0 0 * nov-feb/2 *"),
        ("weekday", "0 0 * * 8"),
        ("weekday", "0 0 * * jan"),
        ("weekday", "0 0 * * mon#6"),
        ("weekday", "0 0 * * mon#1,fri"),
        ("weekday", "0 0 * * mon#l"),
        ("weekday", "0 0 * * L"),
        ("weekday", "0 0 * * fri-mon/2"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(field: str, part: str) -> None:
    said = refusal(part)
    assert said.startswith(f"The {field} of the cron expression {part!r} is ")
    assert "allowed is " in said
    assert said.endswith(".")


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "which is 0 fields; allowed are five"),
        ("* * * *", "which is 4 fields; allowed are five"),
        ("* * * * * * *", "which is 7 fields; allowed are five"),
        ("@reboot", "which is no known alias; allowed are five"),
        ("@", "which is no known alias; allowed are five"),
        ("@daily *", "which is no known alias; allowed are five"),
        ("٣ * * * *", "allowed are five"),
        ("*\u00a0* * * *", "allowed are five"),
        ("* " * 1000, "in at most 256 characters."),
        (None, "The cron expression is None, allowed are five"),
        (5, "The cron expression is 5, allowed are five"),
    ],
)
def test_what_is_no_expression_is_refused(expression: Any, said: str) -> None:
    assert said in refusal(expression)


@given(expression=st.text() | st.text("0123456789*/-,@lLhHrR#?w adejnouy", max_size=30))
def test_any_text_is_an_expression_or_refused_in_one_line(expression: str) -> None:
    try:
        parse(expression)
    except InvalidCron as error:
        assert "\n" not in str(error)
        assert str(error).endswith(".")


@given(expression=expressions, start=moments)
def test_the_next_time_is_later_and_matches_and_none_lies_between(expression: str, start: datetime) -> None:
    fields = parsed(expression)

    found = fields.after(start)

    assert found is not None
    assert found > start
    assert matches(fields, found)
    assert fields.until(found) == found
    before = fields.until(found - timedelta(microseconds=1))
    assert before is None or before <= start


@given(expression=expressions, start=moments)
def test_times_are_those_that_croniter_finds(expression: str, start: datetime) -> None:
    fields = parsed(expression)
    day, weekday = expression.split()[3], expression.split()[5]
    # croniter lets "1-31" restrict, so that every day is allowed whatever the weekday; and the reverse.
    assume(fields.days is not None or day == "*")
    assume(fields.weekdays is not None or weekday == "*")

    theirs = croniter(expression, start, second_at_beginning=True)

    assert fields.after(start) == theirs.get_next(datetime)


@given(expression=expressions, start=moments)
def test_times_backwards_are_those_forwards(expression: str, start: datetime) -> None:
    fields = parsed(expression)
    forwards, moment = [], start
    for _ in range(5):
        moment = fields.after(moment) or datetime.max
        forwards.append(moment)

    backwards, moment = [], forwards[-1]
    for _ in range(5):
        backwards.append(fields.until(moment) or datetime.min)
        moment = backwards[-1] - timedelta(seconds=1)

    assert backwards[::-1] == forwards


def test_time_has_an_end_and_a_beginning() -> None:
    fields = parse("0 0 1 1 *")
    assert fields.after(datetime(9998, 6, 1)) is None
    assert fields.until(datetime(2, 1, 1)) == datetime(2, 1, 1)
    assert fields.until(datetime(1, 12, 31)) is None
