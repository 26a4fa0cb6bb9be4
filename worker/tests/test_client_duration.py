"""Durations as people write and read them."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_jobs.errors import InvalidInput
from forge_jobs.model.moments import LONGEST
from forge_jobs.rules.duration import checked_duration, in_words, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("5min", 300),
        ("2h", 7200),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("250ms", 0.25),
        ("90", 90),
        ("1.5", 1.5),
        ("0", 0),
        ("1h30m", 5400),
        (" 1 h 30 m ", 5400),
        ("1H", 3600),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "5 parsecs",
        "-5m",
        "5m-",
        "m5",
        "nan",
        "inf",
        "1e9",
        "9" * 400,
        "9999999d",
        "٣s",
        "1,5h",
    ],
)
def test_text_that_is_no_duration_is_refused_with_what_is_allowed(text: str):
    with pytest.raises(InvalidInput, match=r"--delay is .*, allowed are seconds, or numbers with"):
        parse_duration(text, "--delay")


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str):
    try:
        assert timedelta(0) <= parse_duration(text) <= LONGEST
    except InvalidInput:
        pass


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(0), "0 s"),
        (timedelta(milliseconds=35), "35 ms"),
        (timedelta(milliseconds=999.7), "1 s"),
        (timedelta(seconds=1.25), "1.2 s"),
        (timedelta(seconds=45), "45 s"),
        (timedelta(seconds=59.9), "1 min"),
        (timedelta(seconds=90), "1 min 30 s"),
        (timedelta(minutes=59, seconds=59.9), "1 h"),
        (timedelta(hours=2, minutes=5, seconds=29), "2 h 5 min"),
        (timedelta(hours=23, minutes=59, seconds=50), "1 d"),
        (timedelta(days=3, hours=4, minutes=10), "3 d 4 h"),
        (timedelta(days=400), "400 d"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(duration: timedelta, words: str):
    assert in_words(duration) == words


@given(st.timedeltas(min_value=timedelta(0), max_value=LONGEST))
def test_what_is_shown_is_within_a_twentieth_of_what_is(duration: timedelta):
    shown = parse_duration(in_words(duration))
    assert abs(shown - duration) <= max(duration * 0.05, timedelta(milliseconds=0.6))


@pytest.mark.parametrize(
    "value", ["5m", None, True, math.nan, math.inf, -1, timedelta(seconds=-1), 1e300, [1]]
)
def test_a_value_that_is_no_duration_is_refused(value: object):
    with pytest.raises(InvalidInput, match=r"^backoff_base is .*, allowed is .*\.$"):
        checked_duration(value, "backoff_base")


def test_seconds_and_timedeltas_are_durations():
    assert checked_duration(1.5, "delay") == timedelta(seconds=1.5)
    assert checked_duration(timedelta(days=1), "delay") == timedelta(days=1)
