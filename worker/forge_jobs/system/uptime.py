"""The clock for what holds until a time has passed: heartbeats, leases, and who was not heard from.

It goes on while this machine sleeps, which the clock of the event loop does not on Linux and
macOS: a worker that wakes up after an hour must not believe that it has just sent a heartbeat.
No change of the time of day moves it.
"""

import time
from collections.abc import Callable
from functools import partial


def _clock() -> Callable[[], float]:
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):  # Linux; macOS, where that one counts sleep
        if (clock := getattr(time, name, None)) is not None:
            try:
                time.clock_gettime(clock)
            except OSError:
                continue
            return partial(time.clock_gettime, clock)
    return time.monotonic


uptime: Callable[[], float] = _clock()
"""Return seconds that only ever grow, by as much as has really passed; comparable on one machine only."""
