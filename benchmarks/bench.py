"""What every measurement is given: the server, how much to do, and a place to say how far it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import child
from benchmarks.line import AtLeast, Line
from benchmarks.report import number
from benchmarks.server import Server


class NotAllDone(Exception):
    """A side ran other jobs than those that it was given."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of one side."""

    jobs: int
    seconds: float
    cpu: float | None = None  # seconds of the side's own process, its start included
    server_cpu: float | None = None  # seconds of the database's processes

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds

    def __str__(self) -> str:
        costs = [
            f"{1_000_000 * cpu / self.jobs:.1f} µs a job of {whose}"
            for cpu, whose in ((self.cpu, "its processor time"), (self.server_cpu, "the server's"))
            if cpu is not None
        ]
        return f"{number(self.rate)} jobs/s" + (f" ({', '.join(costs)})" if costs else "")


Side = Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of the benchmark."""

    server: Server
    jobs: int
    rounds: int
    console: Console
    folder: Path  # for SQLite files

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show what is being done, inside the block."""
        with self.console.status(what):
            yield

    def say(self, text: str) -> None:
        """A line of progress is shown."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def alternate(self, what: str, sides: Mapping[str, Side]) -> dict[str, list[Sample]]:
        """Run the sides in turn, as many rounds as wanted, every other one in the opposite order, since what one leaves to be written
        to the disk is in the way of the next; return the samples of each.
        """
        samples: dict[str, list[Sample]] = {name: [] for name in sides}
        for turn in range(1, self.rounds + 1):
            for name, side in list(sides.items())[:: 1 if turn % 2 else -1]:
                with self.doing(f"{what}, round {turn} of {self.rounds}: {name}"):
                    samples[name].append(side())
                self.say(f"{what}, round {turn} of {self.rounds}: {name} {samples[name][-1]}")
        return samples

    def on_server(self, side: str, **arguments: Any) -> Sample:
        """Run a side that uses the server, and take the server's processor time meanwhile."""
        before = self.server.cpu_seconds()
        sample = sampled(child.run(side, **arguments), arguments["jobs"])
        after = self.server.cpu_seconds()
        return sample if before is None or after is None else replace(sample, server_cpu=after - before)


def sampled(said: Mapping[str, Any], jobs: int) -> Sample:
    """Return what a side said as a sample. Raises NotAllDone when it lost a job or ran one twice."""
    if (said["jobs"], said.get("started", jobs)) != (jobs, jobs):
        raise NotAllDone(f"{jobs} jobs were given, {said.get('started')} were begun and {said['jobs']} done")
    return Sample(jobs, said["seconds"], said.get("cpu"))


def rates(samples: Sequence[Sample]) -> list[float]:
    """Return the jobs a second of each sample."""
    return [sample.rate for sample in samples]


def throughput_beside(samples: Mapping[str, Sequence[Sample]], ours: str, other: str, goal: AtLeast) -> Line:
    """Return the throughput of one side beside that of another."""
    return Line(f"throughput, {ours}", "jobs/s", rates(samples[ours]), other, rates(samples[other]), goal)
