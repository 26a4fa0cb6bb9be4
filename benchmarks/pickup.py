"""How soon an idle worker begins a job that is enqueued.

Worker and producer are two processes; both read the same clock of the machine.
"""

import math
import time
from collections.abc import Sequence

from benchmarks import child
from benchmarks.bench import Bench, NotAllDone
from benchmarks.child import Child
from benchmarks.enqueue import empty
from benchmarks.line import AtMost, Line

JOBS = 300
PAUSE = 0.05  # seconds between two jobs, give or take half
ROUNDS = 2
SETTLE = 2.0  # seconds: for the worker to become idle, and for the last job to begin
SYSTEMS = {"forge-jobs": "forge", "pgqueuer": "pgqueuer"}


class Latency:
    """Milliseconds to the first line of each handler, from the call of enqueue and from its return."""

    def __init__(self, called: Sequence[float], returned: Sequence[float], starts: Sequence[float]) -> None:
        if len(starts) != len(called):
            raise NotAllDone(f"{len(called)} jobs were sent, {len(starts)} began")
        self.from_call = [1000 * (start - at) for start, at in zip(starts, called, strict=True)]
        self.from_return = [1000 * (start - at) for start, at in zip(starts, returned, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` that at least this share of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def latency(bench: Bench, system: str) -> Latency:
    """Send jobs one by one to an idle worker of the system."""
    jobs = min(JOBS, max(20, bench.jobs // 100))
    ours = system == "forge"
    with bench.server.fresh(empty(bench) if ours else None) as url:
        if not ours:
            child.run(f"{system}.fill", url=url, jobs=0)
        with Child(f"{system}.listen", url=url) as worker:
            worker.line()
            time.sleep(SETTLE)
            sent = child.run(f"{system}.send", url=url, jobs=jobs, pause=PAUSE)
            time.sleep(SETTLE)
            return Latency(sent["called"], sent["returned"], worker.finish()["starts"])


def measure(bench: Bench) -> list[Line]:
    """Return the percentiles, beside pgqueuer's."""
    rounds: dict[str, list[Latency]] = {name: [] for name in SYSTEMS}
    for turn in range(1, ROUNDS + 1):
        for name, system in SYSTEMS.items():
            what = f"pickup, round {turn} of {ROUNDS}: {name}"
            with bench.doing(what):
                found = latency(bench, system)
            rounds[name].append(found)
            p50, p99 = percentile(found.from_call, 0.5), percentile(found.from_call, 0.99)
            bench.say(f"{what} p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    ours, other = rounds["forge-jobs"], rounds["pgqueuer"]
    return [
        line
        for share, goal in ((0.5, AtMost(3)), (0.99, AtMost(15)))
        for line in (
            Line(
                f"pickup p{100 * share:g}, from the call",
                "ms",
                [percentile(found.from_call, share) for found in ours],
                "pgqueuer",
                [percentile(found.from_call, share) for found in other],
                goal,
            ),
            Line(
                f"pickup p{100 * share:g}, from its return",
                "ms",
                [percentile(found.from_return, share) for found in ours],
                "pgqueuer",
                [percentile(found.from_return, share) for found in other],
            ),
        )
    ]
