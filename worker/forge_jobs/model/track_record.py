"""What attempts came to, summed over a worker or a version: how many ended how, and how long they ran.

Run times are kept in buckets, two to each doubling, so that records add up and quantiles can be read off.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from math import floor, log2
from typing import Any

import msgspec

PER_DOUBLING = 2
"""Buckets to each doubling of the time: a quantile is known to within a factor of 1.42."""

SHORTEST, LONGEST = -7 * PER_DOUBLING, 17 * PER_DOUBLING
"""The buckets at either end: of all that is below 8 milliseconds, and of all that is above a day and a half."""

RAN = "ran:"
"""How the names of buckets begin, where records are written down."""


def bucket(seconds: float) -> int:
    """Return the bucket of a time: the one that begins at `bucket_start(bucket)` and ends where the next begins."""
    return max(SHORTEST, min(LONGEST, floor(PER_DOUBLING * log2(seconds)))) if seconds > 0 else SHORTEST


def bucket_start(number: int) -> float:
    """Return the shortest time in the bucket, in seconds."""
    return 0.0 if number == SHORTEST else float(2 ** (number / PER_DOUBLING))


BOUNDS = tuple(bucket_start(number) for number in range(SHORTEST + 1, LONGEST + 1))
"""Where each bucket but the first begins, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackRecord:
    """What attempts came to. All only grow, unless they are differences."""

    succeeded: int = 0
    failed: int = 0  # those that were the last of their job, or timed out, included
    timed_out: int = 0  # of those that failed
    lost: int = 0  # the worker died, or went without saying what became of them
    handed_back: int = 0  # begun or not, and not counted against their jobs
    postponed: int = 0  # rescheduled or throttled: they say nothing about who ran them
    workers_lost: int = 0  # workers that fell silent
    durations: Mapping[int, int] = field(default_factory=dict)  # of those that succeeded or failed, by bucket

    @property
    def ended(self) -> int:
        """How many attempts ended in a way that says something about the worker."""
        return self.succeeded + self.failed + self.lost

    @property
    def failures(self) -> int:
        """How many of them failed or were lost."""
        return self.failed + self.lost

    def since(self, before: "TrackRecord") -> "TrackRecord":
        """Return the difference to `before`; a number that is smaller now, since counting began again, counts as 0."""
        counts = {name: max(0, getattr(self, name) - getattr(before, name)) for name in COUNTS}
        grown = {
            number: count - before.durations.get(number, 0)
            for number, count in self.durations.items()
            if count > before.durations.get(number, 0)
        }
        return TrackRecord(**counts, durations=grown)

    def quantile(self, share: float) -> float | None:
        """Return about how many seconds this share of the attempts ran at most; None when no attempt has ended."""
        left = share * sum(self.durations.values())
        if not left:
            return None
        for number, count in sorted(self.durations.items()):
            if count >= left:
                lower = bucket_start(number)
                return lower + (bucket_start(number + 1) - lower) * left / count
            left -= count
        return bucket_start(max(self.durations) + 1)

    def written(self) -> dict[str, int]:
        """Return all that is not zero by its name, as databases keep it."""
        counts = {name: count for name in COUNTS if (count := getattr(self, name))}
        return counts | {f"{RAN}{number}": count for number, count in self.durations.items() if count}


COUNTS = tuple(field.name for field in fields(TrackRecord) if field.name != "durations")


def read(written: Mapping[str, int]) -> TrackRecord:
    """Return the record that `written` made; fields of a later release are ignored."""
    return TrackRecord(
        **{name: written[name] for name in COUNTS if name in written},
        durations={
            int(name.removeprefix(RAN)): count for name, count in written.items() if name.startswith(RAN)
        },
    )


def total(texts: Iterable[str | bytes]) -> TrackRecord:
    """Return the sum of the records that a database keeps as these JSONs."""
    return read(summed(msgspec.json.decode(text, type=dict[str, int]) for text in texts))


def decoded_all(text: str | bytes | None) -> dict[str, TrackRecord]:
    """Return the records, by version, that a database keeps as this JSON."""
    records = msgspec.json.decode(text, type=dict[str, dict[str, int]]) if text else {}
    return {version: read(written) for version, written in records.items()}


def encoded(written: Mapping[str, Any]) -> str:
    """Return the JSON that a database keeps."""
    return msgspec.json.encode(written).decode()


def summed(records: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of records that were written down."""
    total: dict[str, int] = {}
    for record in records:
        for name, count in record.items():
            total[name] = total.get(name, 0) + count
    return total
