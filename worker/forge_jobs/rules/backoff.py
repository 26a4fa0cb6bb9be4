"""When the next attempt runs: after a failure, and after a throttle.

Pure functions of a queue's configuration; `verdict` and `worker/cooldowns.py` call them,
and `storage` only writes down what they say.
"""

import random as _random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from forge_jobs.model.moments import LONGEST
from forge_jobs.model.queue import QueueConfig

JITTER = 0.2
"""How far a retry may stray from its delay, as a share of it: retries of one outage do not come back as one."""

THROTTLE_WITHOUT_BACKOFF = timedelta(seconds=60)
"""How long a throttled queue cools down when its backoff is off and nobody said for how long."""

UNREADABLE_BASE, UNREADABLE_LONGEST = timedelta(seconds=10), timedelta(minutes=5)
"""How long a job waits that its worker could not read, at first when the backoff of its queue is off, and at most."""

THROTTLES_FORGOTTEN_AFTER = timedelta(seconds=120)
"""A queue that was left alone for this long after a cool-down starts counting throttles anew."""


def retry_delay(
    queue: QueueConfig, attempt: int, *, jitter: float = JITTER, random: Callable[[], float] = _random.random
) -> timedelta:
    """Return how long a job waits after its `attempt` (counted from 1) failed.

    Zero when the queue's backoff is off; otherwise the base doubled with each attempt,
    give or take the share `jitter`, never more than the queue's maximum. `random` gives [0, 1).
    """
    if not queue.backoff_enabled:
        return timedelta(0)
    strayed = 1 + jitter * (2 * random() - 1)
    return min(_doubled(queue, attempt) * strayed, _longest(queue))


def unreadable_delay(
    queue: QueueConfig, times: int, *, random: Callable[[], float] = _random.random
) -> timedelta:
    """Return how long a job waits that its worker met for so many `times` (counted from 1) and could not read.

    As after failed attempts, but never at once, and at most 5 minutes: what was missing may be here by then.
    """
    base = queue.backoff_base if queue.backoff_enabled and queue.backoff_base else UNREADABLE_BASE
    doubled = min(max(base, timedelta(seconds=1)), UNREADABLE_LONGEST) * (1 << min(max(times - 1, 0), 20))
    return min(doubled, UNREADABLE_LONGEST) * (1 + JITTER * (2 * random() - 1))


class Cooldown(NamedTuple):
    """A queue cools down for `delay` after so many throttles in a row (counted from 1)."""

    delay: timedelta
    throttles: int


def cooldown(queue: QueueConfig, now: datetime, retry_after: timedelta | None) -> Cooldown:
    """Decide how long the queue cools down after a throttle that is heard `now`, by the database's clock.

    `retry_after` is what the handler asked for, None when it did not say.
    """
    throttles = throttles_in_a_row(queue, now)
    return Cooldown(throttle_delay(queue, throttles, retry_after), throttles)


def throttle_delay(queue: QueueConfig, throttles: int, retry_after: timedelta | None) -> timedelta:
    """Return how long the queue cools down after `throttles` in a row (counted from 1).

    `retry_after` is respected when the handler gave one. There is no jitter: the whole
    queue waits as one.
    """
    if retry_after is not None:
        return max(retry_after, timedelta(0))
    if not queue.backoff_enabled:
        return THROTTLE_WITHOUT_BACKOFF
    return _doubled(queue, throttles)


def throttles_in_a_row(queue: QueueConfig, now: datetime) -> int:
    """Return how many throttles in a row there are with one that is heard `now`.

    One more than the queue says; the same while the queue is still cooling down, since
    jobs that were already running hear what is known; 1 when the last cool-down is long over.
    """
    if queue.cooldown_until is None or now - queue.cooldown_until > THROTTLES_FORGOTTEN_AFTER:
        return 1
    if now < queue.cooldown_until:
        return max(queue.throttles, 1)
    return queue.throttles + 1


def _doubled(queue: QueueConfig, times: int) -> timedelta:
    """Return the base doubled `times - 1` times, at most the queue's maximum."""
    base, longest = max(queue.backoff_base, timedelta(0)), _longest(queue)
    # Shifting the maximum down cannot overflow, as multiplying the base could; more than
    # 63 doublings of a microsecond are longer than a timedelta can be.
    doublings = min(max(times - 1, 0), 63)
    if base > longest / (1 << doublings):
        return longest
    return min(base * (1 << doublings), longest)


def _longest(queue: QueueConfig) -> timedelta:
    return min(max(queue.backoff_max, timedelta(0)), LONGEST)
