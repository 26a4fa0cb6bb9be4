"""What every measurement is given: the server, how much to do, and a place to say how far it is."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.report import number
from benchmarks.server import Server

Sample = Mapping[str, Any]
Side = Callable[[], Sample]


class NotAllDone(Exception):
    """A side ran other jobs than those that it was given."""


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
        self.console.print(text, highlight=False)

    def alternate(self, what: str, sides: Mapping[str, Side]) -> dict[str, list[float]]:
        """Run the sides in turn, as many rounds as wanted; return the jobs a second of each.

        Raises NotAllDone when a side lost a job or ran one twice.
        """
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(1, self.rounds + 1):
            for name, side in sides.items():
                with self.doing(f"{what}, round {turn} of {self.rounds}: {name}"):
                    sample = side()
                rates[name].append(sample["jobs"] / sample["seconds"])
                self.say(f"{what}, round {turn} of {self.rounds}: {name} {number(rates[name][-1])} jobs/s")
        return rates

    @staticmethod
    def checked(sample: Sample, jobs: int) -> Sample:
        """Return the sample of a drain. Raises NotAllDone when it is not of exactly `jobs` jobs."""
        if (sample["jobs"], sample["started"]) != (jobs, jobs):
            raise NotAllDone(
                f"{jobs} jobs were given, {sample['started']} were begun and {sample['jobs']} done"
            )
        return sample
