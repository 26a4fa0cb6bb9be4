from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_jobs.model.moments import LONGEST
from forge_jobs.model.queue import QueueConfig
from forge_jobs.rules.backoff import (
    Cooldown,
    cooldown,
    retry_delay,
    throttle_delay,
    throttles_in_a_row,
    unreadable_delay,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def queue(*, base: float = 10, longest: float = 1800, **facts: Any) -> QueueConfig:
    return QueueConfig("mail", backoff_base=seconds(base), backoff_max=seconds(longest), **facts)


def middle() -> float:
    return 0.5  # no jitter


@pytest.mark.parametrize(("attempt", "expected"), [(1, 10), (2, 20), (3, 40), (8, 1280), (9, 1800)])
def test_the_delay_doubles_with_each_attempt_up_to_the_maximum(attempt: int, expected: float) -> None:
    assert retry_delay(queue(), attempt, random=middle) == seconds(expected)


def test_a_queue_without_backoff_retries_at_once() -> None:
    assert retry_delay(queue(backoff_enabled=False), 3) == timedelta(0)


def test_jitter_moves_the_delay_by_a_fifth_at_most_in_both_directions() -> None:
    assert retry_delay(queue(), 1, random=lambda: 0.0) == seconds(8)
    assert retry_delay(queue(), 1, random=lambda: 1.0) == seconds(12)


def test_jitter_never_exceeds_the_maximum() -> None:
    assert retry_delay(queue(), 9, random=lambda: 1.0) == seconds(1800)


@pytest.mark.parametrize("attempt", [64, 1_000, 10**6])
def test_a_job_that_is_retried_for_ever_does_not_overflow(attempt: int) -> None:
    assert retry_delay(queue(), attempt, random=middle) == seconds(1800)


def test_a_maximum_below_the_base_is_kept() -> None:
    assert retry_delay(queue(base=60, longest=5), 1, random=middle) == seconds(5)


def test_a_base_of_zero_stays_zero() -> None:
    assert retry_delay(queue(base=0), 10**6, random=middle) == timedelta(0)


@given(
    base=st.timedeltas(min_value=timedelta(days=-1)),
    longest=st.timedeltas(min_value=timedelta(days=-1)),
    attempt=st.integers(-5, 10**6),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_every_delay_is_between_zero_and_the_maximum(
    base: timedelta, longest: timedelta, attempt: int, chance: float
) -> None:
    config = QueueConfig("mail", backoff_base=base, backoff_max=longest)

    for delay in (
        retry_delay(config, attempt, random=lambda: chance),
        throttle_delay(config, attempt, None),
    ):
        assert timedelta(0) <= delay <= max(longest, timedelta(0))


@given(attempt=st.integers(1, 200))
def test_a_later_attempt_never_waits_less(attempt: int) -> None:
    earlier = retry_delay(queue(), attempt, random=middle)
    assert retry_delay(queue(), attempt + 1, random=middle) >= earlier


def test_a_throttle_waits_as_long_as_the_handler_was_told() -> None:
    assert throttle_delay(queue(), 5, seconds(7)) == seconds(7)
    assert throttle_delay(queue(backoff_enabled=False), 5, timedelta(0)) == timedelta(0)
    assert throttle_delay(queue(), 5, seconds(86400)) == seconds(86400)


@pytest.mark.parametrize(("throttles", "expected"), [(1, 10), (2, 20), (4, 80), (9, 1800), (10**6, 1800)])
def test_throttles_in_a_row_wait_longer_and_longer(throttles: int, expected: float) -> None:
    assert throttle_delay(queue(), throttles, None) == seconds(expected)


def test_a_throttled_queue_without_backoff_waits_a_minute() -> None:
    assert throttle_delay(queue(backoff_enabled=False), 5, None) == seconds(60)


def test_the_first_throttle_of_a_queue_is_number_one() -> None:
    assert throttles_in_a_row(queue(), NOW) == 1


@pytest.mark.parametrize("ago", [0, 1, 120])
def test_a_throttle_soon_after_a_cool_down_counts_on(ago: float) -> None:
    config = queue(throttles=3, cooldown_until=NOW - seconds(ago))
    assert throttles_in_a_row(config, NOW) == 4


def test_a_throttle_long_after_a_cool_down_starts_again() -> None:
    config = queue(throttles=3, cooldown_until=NOW - seconds(120.001))
    assert throttles_in_a_row(config, NOW) == 1


def test_a_throttle_during_a_cool_down_is_not_counted_again() -> None:
    config = queue(throttles=3, cooldown_until=NOW + seconds(5))
    assert throttles_in_a_row(config, NOW) == 3


def test_a_cooldown_is_longer_with_each_throttle_and_as_long_as_the_handler_was_told() -> None:
    config = queue(throttles=2, cooldown_until=NOW)
    assert cooldown(config, NOW, None) == Cooldown(seconds(40), throttles=3)
    assert cooldown(config, NOW, seconds(7)) == Cooldown(seconds(7), throttles=3)


def test_no_delay_is_longer_than_a_database_can_add_to_its_clock() -> None:
    endless = QueueConfig("mail", backoff_base=timedelta.max, backoff_max=timedelta.max)
    assert retry_delay(endless, 2**31 - 1) <= LONGEST
    assert throttle_delay(endless, 2**31 - 1, None) <= LONGEST


@pytest.mark.parametrize(("times", "expected"), [(1, 10), (2, 20), (5, 160), (6, 300), (10_000, 300)])
def test_a_job_that_nobody_here_can_read_waits_longer_each_time_up_to_five_minutes(
    times: int, expected: float
) -> None:
    assert unreadable_delay(queue(), times, random=middle) == seconds(expected)


def test_a_job_that_nobody_here_can_read_is_never_tried_again_at_once() -> None:
    assert unreadable_delay(queue(backoff_enabled=False), 1, random=middle) == seconds(10)
    assert unreadable_delay(queue(base=0), 1, random=middle) == seconds(10)
    assert unreadable_delay(queue(base=0.001), 1, random=middle) == seconds(1)
    assert unreadable_delay(queue(base=100_000), 1, random=middle) == seconds(300)
