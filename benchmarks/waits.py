"""What jobs that wait for signals cost those that do not, and how soon a signal wakes one."""

import time

from benchmarks import child
from benchmarks.bench import Bench, NotAllDone, Sample, throughput_beside
from benchmarks.child import Child
from benchmarks.line import AtLeast, AtMost, Line
from benchmarks.pickup import JOBS, PAUSE, ROUNDS, SETTLE, Latency, percentile
from benchmarks.throughput import DONE

WAITS = 100_000


def filled(bench: Bench, waits: int) -> str:
    """Return the template of a database in which jobs are pending, and so many others wait."""
    name = f"waits_{waits}"
    if not bench.server.has_template(name):
        with bench.doing(f"letting {waits:,} jobs wait"), bench.server.template(name) as url:
            child.run("signalled.fill", url=url, jobs=bench.jobs, waits=waits)
    return name


def drain(bench: Bench, waits: int) -> Sample:
    """Work off the pending jobs, and look whether the database agrees that they are done."""
    with bench.server.fresh(filled(bench, waits)) as url:
        sample = bench.on_server("forge.work_through", url=url, jobs=bench.jobs)
        if (done := int(bench.server.execute(DONE))) != bench.jobs:
            raise NotAllDone(f"{bench.jobs} jobs were given, the database says that {done} are done")
        return sample


def wake(bench: Bench) -> Latency:
    """Wake jobs one by one, by a worker that has nothing else to do."""
    name = f"waits_{WAITS}_alone"
    if not bench.server.has_template(name):
        with bench.doing(f"letting {WAITS:,} jobs wait"), bench.server.template(name) as url:
            child.run("signalled.fill", url=url, jobs=0, waits=WAITS)
    jobs = min(JOBS, max(20, bench.jobs // 100))
    with bench.server.fresh(name) as url, Child("signalled.listen", url=url) as worker:
        worker.line()
        time.sleep(SETTLE)
        sent = child.run("signalled.send", url=url, jobs=jobs, pause=PAUSE)
        time.sleep(SETTLE)
        return Latency(sent["called"], sent["returned"], worker.finish()["starts"])


def measure(bench: Bench) -> list[Line]:
    """Return the throughput beside jobs that wait, and the percentiles of how long a signal takes."""
    beside, alone = f"{WAITS:,} jobs wait for signals", "none waits"
    samples = bench.alternate(
        "jobs wait for signals", {beside: lambda: drain(bench, WAITS), alone: lambda: drain(bench, 0)}
    )
    lines = [throughput_beside(samples, beside, alone, AtLeast(0.98))]
    found = []
    for turn in range(1, ROUNDS + 1):
        what = f"wake, round {turn} of {ROUNDS}"
        with bench.doing(what):
            found.append(wake(bench))
        p50, p99 = (percentile(found[-1].from_return, share) for share in (0.5, 0.99))
        bench.say(f"{what} p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    return lines + [
        Line(
            f"wake p{100 * share:g}, {beside}, from the {since}",
            "ms",
            [percentile(getattr(one, f"from_{since}"), share) for one in found],
            goal=goal,
        )
        for since, share, goal in (
            ("call", 0.5, None),
            ("call", 0.99, None),
            ("return", 0.5, None),
            ("return", 0.99, AtMost(20)),
        )
    ]
