"""The stretches of a queue's index that a claim looks at: all of it, except where hints say that there is nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from forge_jobs.storage.interface.claims import Hint

AFTER_ALL_PRIORITIES = 32768


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the index, from (priority, pos) up to the priority `until`, which does not belong to it."""

    priority: int
    pos: int
    until: int


def stretches(first: Hint, hints: Sequence[Hint]) -> list[Stretch]:
    """Return the stretches in the order of the index, from `first` on. A priority without a hint begins at its beginning."""
    begins = [first, *sorted(hint for hint in hints if hint > first)]
    ends = [*(priority for priority, _ in begins[1:]), AFTER_ALL_PRIORITIES]
    return [
        Stretch(priority, pos, until)
        for (priority, pos), until in zip(begins, ends, strict=True)
        if priority < until
    ]
