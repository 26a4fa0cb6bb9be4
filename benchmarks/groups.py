"""What blocked jobs cost those that are not, and how soon a place that is given up is used by the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks import child
from benchmarks.bench import Bench, NotAllDone, Sample, throughput_beside
from benchmarks.line import AtLeast, AtMost, AtMostTimes, Line
from benchmarks.pickup import percentile
from benchmarks.throughput import DONE

BLOCKED = 100_000
JOBS_FACTOR = 3  # times the jobs, so that the start of a worker is a small part of what is measured
LINE_SHARE = 20  # a twentieth of the jobs hand a place over
PARTS = 4  # of a run, of which the last may take no longer than the first


@dataclass(frozen=True, slots=True)
class HandOvers:
    """Milliseconds from the beginning of each handler of a group to that of the next."""

    all: Sequence[float]

    @classmethod
    def between(cls, starts: Sequence[float], jobs: int) -> "HandOvers":
        """Return those between these moments. Raises NotAllDone unless they are of so many jobs."""
        if len(starts) != jobs:
            raise NotAllDone(f"{jobs} jobs stood in line, {len(starts)} began")
        return cls([1000 * (then - before) for before, then in pairwise(starts)])

    def p(self, share: float) -> float:
        """Return the percentile of all."""
        return percentile(self.all, share)

    def p50_of_part(self, number: int) -> float:
        """Return the median of one of the PARTS of the run, counted from 0."""
        size = len(self.all) // PARTS
        return percentile(self.all[number * size : (number + 1) * size], 0.5)


def filled(bench: Bench, blocked: int) -> str:
    """Return the template of a database in which jobs are pending, and so many others blocked."""
    name = f"blocked_{blocked}"
    if not bench.server.has_template(name):
        with bench.doing(f"letting {blocked:,} jobs be blocked"), bench.server.template(name) as url:
            child.run("grouped.fill", url=url, jobs=JOBS_FACTOR * bench.jobs, blocked=blocked)
    return name


def drain(bench: Bench, blocked: int) -> Sample:
    """Work off the pending jobs, and look whether the database agrees that they are done, and no other."""
    jobs = JOBS_FACTOR * bench.jobs
    with bench.server.fresh(filled(bench, blocked)) as url:
        sample = bench.on_server("forge.work_through", url=url, jobs=jobs)
        if (done := int(bench.server.execute(DONE))) != jobs:
            raise NotAllDone(f"{jobs} jobs were given, the database says that {done} are done")
        return sample


def hand_over(bench: Bench, *, is_pinned: bool) -> HandOvers:
    """Let jobs of a group with one place run until none is left."""
    jobs = bench.jobs // LINE_SHARE
    name = f"line_{jobs}"
    if not bench.server.has_template(name):
        with bench.doing(f"letting {jobs:,} jobs stand in line"), bench.server.template(name) as url:
            child.run("grouped.stand_in_line", url=url, jobs=jobs)
    with bench.server.fresh(name) as url:
        said = child.run("grouped.hand_over", url=url, jobs=jobs, is_pinned=is_pinned)
    return HandOvers.between(said["starts"], jobs)


def measure(bench: Bench) -> list[Line]:
    """Return the throughput beside blocked jobs, and the percentiles of hand-overs."""
    beside, alone = f"{BLOCKED:,} jobs are blocked", "none is blocked"
    samples = bench.alternate(
        "groups", {beside: lambda: drain(bench, BLOCKED), alone: lambda: drain(bench, 0)}
    )
    lines = [throughput_beside(samples, beside, alone, AtLeast(0.95))]
    return lines + _hand_overs(bench)


def _hand_overs(bench: Bench) -> list[Line]:
    sides = {"": False, ", transaction held open": True}
    found: dict[str, list[HandOvers]] = {name: [] for name in sides}
    for turn in range(1, bench.rounds + 1):
        for name, is_pinned in sides.items():
            what = f"hand-over, round {turn} of {bench.rounds}{name}"
            with bench.doing(what):
                found[name].append(hand_over(bench, is_pinned=is_pinned))
            one = found[name][-1]
            parts = ", ".join(f"{one.p50_of_part(part):.2f}" for part in range(PARTS))
            bench.say(f"{what} p50 {one.p(0.5):.2f} ms, p99 {one.p(0.99):.2f} ms, by quarters {parts}")
    plain, *pinned = found
    lines = [
        Line("hand-over of a place, p50", "ms", [one.p(0.5) for one in found[plain]], goal=AtMost(2)),
        Line("hand-over of a place, p99", "ms", [one.p(0.99) for one in found[plain]]),
    ]
    for name in pinned:
        last, first = ([one.p50_of_part(part) for one in found[name]] for part in (PARTS - 1, 0))
        what = f"hand-over, p50 of the last quarter{name}"
        lines.append(Line(what, "ms", last, "the first quarter", first, AtMostTimes(1.25)))
    return lines
