"""What turns of tenants cost, and what they are good for: how long many small tenants wait beside one with very many jobs."""

import time
from collections.abc import Sequence

from benchmarks import child
from benchmarks.bench import Bench, NotAllDone, Sample, throughput_beside
from benchmarks.child import Child
from benchmarks.enqueue import empty
from benchmarks.line import AtLeast, AtMostTimes, Line
from benchmarks.pickup import percentile
from benchmarks.throughput import DONE

TENANTS = 1000
NOISE_FACTOR = 10  # times the jobs of a run: a million
LASTS = (
    0.25  # seconds that a job of the waits takes, give or take half: else all would end, and begin, at once
)
CONCURRENCY = 500  # of their worker: twice what the many tenants keep busy
SENDING = 10.0  # seconds
SETTLE = 3.0  # seconds: for the noise to have all runners, and for the last jobs to begin


def filled(bench: Bench, tenants: int, *, is_fair: bool) -> str:
    """Return the template of a database in which jobs of so many tenants wait."""
    name = f"fair_{tenants}_{'turns' if is_fair else 'plain'}"
    if not bench.server.has_template(name):
        with bench.doing(f"enqueueing for {tenants:,} tenants"), bench.server.template(name) as url:
            child.run("fair.fill", url=url, jobs=bench.jobs, tenants=tenants, is_fair=is_fair)
    return name


def drain(bench: Bench, tenants: int, *, is_fair: bool = True, is_pinned: bool = False) -> Sample:
    """Work off the jobs, and look whether the database agrees that they are done."""
    with bench.server.fresh(filled(bench, tenants, is_fair=is_fair)) as url:
        arguments = {"is_fair": is_fair, "is_pinned": is_pinned}
        sample = bench.on_server("fair.work_through", url=url, jobs=bench.jobs, **arguments)
        if (done := int(bench.server.execute(DONE))) != bench.jobs:
            raise NotAllDone(f"{bench.jobs} jobs were given, the database says that {done} are done")
        return sample


def noisy(bench: Bench) -> str:
    """Return the template of a database in which one tenant has very many jobs."""
    name, jobs = "fair_noise", NOISE_FACTOR * bench.jobs
    if not bench.server.has_template(name):
        with bench.doing(f"enqueueing {jobs:,} jobs of one tenant"), bench.server.template(name) as url:
            child.run("fair.noise", url=url, jobs=jobs)
    return name


def waits(bench: Bench, *, is_noisy: bool, is_pinned: bool = False) -> list[float]:
    """Return how many milliseconds each job of the many tenants waited, from the call that enqueued it."""
    with bench.server.fresh(noisy(bench) if is_noisy else empty(bench)) as url:
        working = {"seconds": LASTS, "concurrency": CONCURRENCY, "is_pinned": is_pinned}
        with Child("fair.listen", url=url, **working) as worker:
            worker.line()
            time.sleep(SETTLE)
            sent = child.run("fair.send", url=url, tenants=TENANTS, seconds=SENDING)["sent"]
            time.sleep(SETTLE)
            said = worker.finish()
    if len(said["waits"]) != sent:
        raise NotAllDone(f"{sent} jobs of {TENANTS} tenants were sent, {len(said['waits'])} began")
    if is_noisy and not said["noise"]:
        raise NotAllDone("no job of the tenant with very many has begun")
    return [1000 * wait for wait in said["waits"]]


def measure(bench: Bench) -> list[Line]:
    """Return the throughput of jobs of tenants beside plain ones, and the waits with and without the noise."""
    many, one, held = f"{TENANTS:,} tenants", "one tenant", f"{TENANTS:,} tenants, transaction held open"
    samples = bench.alternate(
        "tenants take turns",
        {
            many: lambda: drain(bench, TENANTS),
            "plain": lambda: drain(bench, TENANTS, is_fair=False),
            one: lambda: drain(bench, 1),
            held: lambda: drain(bench, TENANTS, is_pinned=True),
            "plain, transaction held open": lambda: drain(bench, TENANTS, is_fair=False, is_pinned=True),
        },
    )
    lines = [
        throughput_beside(samples, name, beside, AtLeast(0.85))
        for name, beside in ((many, "plain"), (one, "plain"), (held, "plain, transaction held open"))
    ]
    return lines + _waits(bench)


def _waits(bench: Bench) -> list[Line]:
    sides = {
        "without the noise": {"is_noisy": False},
        "with it": {"is_noisy": True},
        "with it, transaction held open": {"is_noisy": True, "is_pinned": True},
    }
    found: dict[str, list[Sequence[float]]] = {name: [] for name in sides}
    for turn in range(1, bench.rounds + 1):
        for name, side in sides.items():
            what = f"waits of {TENANTS:,} tenants, round {turn} of {bench.rounds}: {name}"
            with bench.doing(what):
                found[name].append(waits(bench, **side))
            p50, p99 = (percentile(found[name][-1], share) for share in (0.5, 0.99))
            bench.say(f"{what} p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    quiet, *noisy_ones = found
    p99s = {name: [percentile(one, 0.99) for one in rounds] for name, rounds in found.items()}
    what = f"wait p99 of {TENANTS:,} tenants, {NOISE_FACTOR * bench.jobs:,} jobs of another wait"
    return [
        Line(f"{what}, {name}".replace(", with it", ""), "ms", p99s[name], quiet, p99s[quiet], AtMostTimes(2))
        for name in noisy_ones
    ]
