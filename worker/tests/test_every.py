"""Expressions of crons in words."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from forge_jobs import InvalidCron, every
from forge_jobs.rules.cron_times import parse

WEDNESDAY = datetime(2030, 5, 15, 12, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "first", "second"),
    [
        (every.minute(), "05-15 12:01", "05-15 12:02"),
        (every.minutes(20), "05-15 12:20", "05-15 12:40"),
        (every.hour(), "05-15 13:00", "05-15 14:00"),
        (every.hour(at=15), "05-15 12:15", "05-15 13:15"),
        (every.hours(6, at=5), "05-15 12:05", "05-15 18:05"),
        (every.day(), "05-16 00:00", "05-17 00:00"),
        (every.day(at="8:05"), "05-16 08:05", "05-17 08:05"),
        (every.weekday(at="18:30"), "05-15 18:30", "05-16 18:30"),
        (every.week("sun", "wed", at="09:00"), "05-19 09:00", "05-22 09:00"),
        (every.month(at="00:10"), "06-01 00:10", "07-01 00:10"),
        (every.month(31), "05-31 00:00", "07-31 00:00"),
        (every.year("dec", 24, at="17:00"), "12-24 17:00", "12-24 17:00"),
    ],
)
def test_an_expression_fires_when_its_words_say(expression: str, first: str, second: str) -> None:
    cron = parse(expression)
    fires = [cron.next_after(WEDNESDAY)]
    fires.append(cron.next_after(fires[0]))

    assert [f"{fire:%m-%d %H:%M}" for fire in fires] == [first, second]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: every.minutes(7), "minutes is 7, allowed is one of 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30."),
        (lambda: every.minutes(True), "minutes is True"),
        (lambda: every.hours(5), "hours is 5, allowed is one of 1, 2, 3, 4, 6, 8, 12."),
        (lambda: every.hour(at=60), "at is 60, allowed is 0 to 59."),
        (lambda: every.day(at="24:00"), "at is '24:00', allowed is a time from 00:00 to 23:59."),
        (lambda: every.day(at=8), "at is 8, allowed is a time"),  # type: ignore[arg-type]
        (lambda: every.week(at="08:00"), "day is None, allowed is one or several of mon, tue,"),
        (lambda: every.week("Monday"), "day is 'Monday'"),
        (lambda: every.month(32), "day is 32, allowed is 1 to 31."),
        (lambda: every.year("feb", 30), "day is 30, allowed is 1 to 29."),
        (lambda: every.year("Feb"), "month is 'Feb', allowed is one of jan,"),
    ],
)
def test_words_that_name_no_time_are_refused(call: Callable[[], str], said: str) -> None:
    with pytest.raises(InvalidCron) as error:
        call()

    assert said in str(error.value)
