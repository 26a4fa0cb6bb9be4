"""What attempts came to: adding, comparing, and how long most of them ran."""

import pytest

from forge_jobs.model.track_record import (
    BOUNDS,
    LONGEST,
    SHORTEST,
    TrackRecord,
    bucket,
    bucket_start,
    encoded,
    read,
    summed,
    total,
)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.01, 0.5, 1.0, 3.0, 59.9, 86_400.0, 1e9])
def test_a_time_is_in_the_bucket_that_begins_before_it_and_ends_after_it(seconds: float) -> None:
    number = bucket(seconds)

    assert SHORTEST <= number <= LONGEST
    assert bucket_start(number) <= seconds or number == SHORTEST
    assert seconds < bucket_start(number + 1) or number == LONGEST
    assert number == SHORTEST + sum(seconds >= bound for bound in BOUNDS)


@pytest.mark.parametrize("seconds", [0.02, 0.3, 1.0, 7.0, 100.0])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_quantile_is_known_to_within_the_width_of_a_bucket(seconds: float, share: float) -> None:
    record = TrackRecord(durations={bucket(seconds): 100, bucket(1000 * seconds): 1})

    found = record.quantile(share)

    assert found is not None
    assert 1 / 1.42 <= found / seconds <= 1.42


def test_of_nothing_there_is_no_quantile() -> None:
    assert TrackRecord(lost=3).quantile(0.5) is None


def test_what_has_come_since_is_never_less_than_nothing() -> None:
    now = TrackRecord(succeeded=10, lost=1, durations={0: 9, 4: 1})

    assert now.since(TrackRecord(succeeded=4, durations={0: 4})) == TrackRecord(
        succeeded=6, lost=1, durations={0: 5, 4: 1}
    )
    assert now.since(TrackRecord(succeeded=40, lost=3, durations={0: 90, 4: 1})) == TrackRecord()


def test_a_record_is_read_as_it_was_written_and_what_is_not_known_is_passed_over() -> None:
    record = TrackRecord(succeeded=3, timed_out=1, workers_lost=2, durations={-14: 3, 34: 1})

    assert total([encoded(record.written())]) == record
    assert read({**record.written(), "of_a_later_release": 5}) == record
    assert read(summed([record.written(), record.written()])).succeeded == 6
    assert total([]) == total(["{}"]) == TrackRecord()
