"""Chains and joins beside the nearest that other queues have, each run by its own adapter, as in `comparison`."""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.bench import Bench, NotAllDone, Sample, rates
from benchmarks.comparison import catalogue, install, process
from benchmarks.comparison.measure import Subject, accounts, emptied, workers
from benchmarks.comparison.place import fresh
from benchmarks.line import Line
from benchmarks.server import Server

OURS = "forge-jobs"
OTHERS = {"pg-boss": "pg-boss flow()", "dbos": "dbos steps, and child workflows"}
STEPS = 10  # of a chain
SHARE = 20  # of the jobs of a run are in chains, and as many wait for one: few, since some are slow
SECONDS = 30.0  # that a side may take, about; it is given up after ten times as long
SETTINGS = "best"
# pg-boss tells nobody of a job that is free from now on, and workers that are told of others look each 30 seconds only.
FOR_FLOWS: Mapping[str, Mapping[str, Any]] = {"pg-boss": {"notify": False}}


def measure(bench: Bench) -> list[Line]:
    """Return how fast chains and joins are started and worked off, ours and those of others that can be installed."""
    subjects = _subjects(bench)
    sizes = {
        "chains": bench.jobs // SHARE // STEPS * STEPS,
        "join": bench.jobs // SHARE + 1,
    }
    sides: dict[str, Callable[[], Sample]] = {}
    starts: dict[str, list[Sample]] = {}
    for shape, jobs in sizes.items():
        for name, subject in subjects.items():
            started = starts[f"{shape}, {name}"] = []
            sides[f"{shape}, {name}"] = functools.partial(
                _side, bench.server, subject, shape, jobs, started.append
            )
    samples = bench.alternate("flows beside", sides)
    lines = []
    for shape, jobs in sizes.items():
        what = f"steps of chains of {STEPS}" if shape == "chains" else f"{jobs - 1:,} jobs and their join"
        ours = f"{shape}, {OURS}"
        for name in list(subjects)[1:]:
            other = f"{shape}, {name}"
            for found, of in ((samples, what), (starts, f"{what}: their start")):
                lines.append(Line(of, "jobs/s", rates(found[ours]), OTHERS[name], rates(found[other])))
    return lines


def _subjects(bench: Bench) -> dict[str, Subject]:
    """Return the queues, ours first, and say why another one is missing."""
    peers = catalogue.peers()
    subjects: dict[str, Subject] = {}
    for name in (OURS, *OTHERS):
        try:
            with bench.doing(f"installing {name}"):
                install.ensure(peers[name])
            described = asyncio.run(process.run(peers[name], "describe"))
        except (install.NotInstalled, process.AdapterFailed) as error:
            bench.say(f"{name} is not measured: {error}")
            continue
        settings = {SETTINGS: {**described["settings"][SETTINGS], **FOR_FLOWS.get(name, {})}}
        subjects[name] = Subject(peers[name], {**described, "settings": settings}, SETTINGS, SECONDS)
        bench.say(f"{name}: {described['versions']}, {described['runtime']}, {subjects[name].given()}")
    return subjects


def _side(
    server: Server, subject: Subject, shape: str, jobs: int, note_start: Callable[[Sample], None]
) -> Sample:
    started, worked = asyncio.run(drained(server, subject, shape, jobs))
    note_start(started)
    return worked


async def drained(server: Server, subject: Subject, shape: str, jobs: int) -> tuple[Sample, Sample]:
    """Start flows of so many jobs, and work them off; return what both took. Raises NotAllDone."""
    given: dict[str, Any] = {"url": "", "settings": subject.given()}
    async with fresh("postgres", server) as place:
        given["url"] = place.url
        await process.run(subject.peer, "prepare", **given)
        said = await process.run(subject.peer, "flows", shape=shape, jobs=jobs, steps=STEPS, **given)
        await place.settle()
        async with workers(subject, place) as working:
            before = place.server_seconds(), working.seconds()
            working.go()
            left = await emptied(subject, place, working, jobs, subject.patience)
            ended = time.monotonic_ns()
            after = place.server_seconds(), working.seconds()
            records = await working.stop()
    found = accounts(records, jobs)
    if left or found["lost"] or found["repeated"]:
        raise NotAllDone(f"{subject.peer.name}, {shape} of {jobs} jobs: {left} are left, {found}")
    seconds = (ended - min(record.moments[0] for record in records if record.moments)) / 1e9
    server_cpu, cpu = (
        None if was is None or now is None else now - was for was, now in zip(before, after, strict=True)
    )
    return Sample(jobs, said["seconds"]), Sample(jobs, seconds, cpu, server_cpu)
