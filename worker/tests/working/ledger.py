"""What the handlers of `program` wrote down."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Line:
    what: str
    job_id: int
    attempt: int
    process: int
    at: float


class Ledger:
    """The file that handlers in all processes append to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Line]:
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                what, job_id, attempt, process, at = line.split()
                yield Line(what, int(job_id), int(attempt), int(process), float(at))

    def of(self, what: str) -> list[Line]:
        return [line for line in self if line.what == what]

    def most_at_once(self) -> int:
        """How many handlers ran at one moment, at most."""
        steps = sorted(
            (line.at, 1 if line.what == "start" else -1) for line in self if line.what in ("start", "end")
        )
        running = most = 0
        for _, step in sorted(steps, key=lambda each: (each[0], each[1])):
            running += step
            most = max(most, running)
        return most
