"""What a demonstration found, as a table for people and as JSON for programs."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec


@dataclass(slots=True)
class DemoReport:
    """The facts of one demonstration. `problems` holds a sentence for each check that failed."""

    directory: str
    database: str  # e.g. "SQLite 3.40.1"
    concurrency: int
    files: int
    bytes: int
    lines: int
    jobs: int  # that ended
    seconds: float  # from the first enqueue to the end of the last file's job
    jobs_per_second: float
    retries: int
    dead: int
    unreadable: int  # files that could not be read; their jobs are dead
    changed: int  # files that changed between the job and the check
    announcements: int  # jobs that the rate limit let through
    cron_fires: int
    wait_p50_ms: float  # from the moment a job could be claimed to the start of its handler
    wait_p99_ms: float
    problems: list[str] = field(default_factory=list)

    @property
    def verified(self) -> bool:
        """Whether the queue's result equals a direct walk, and every planted job ended as planned."""
        return not self.problems

    def write(self, path: Path) -> None:
        """`path` holds the report as JSON."""
        facts = msgspec.to_builtins(self) | {"verified": self.verified}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")

    def table(self) -> str:
        """Return the report as people read it."""
        rows = self._rows()
        names, values = (max(map(len, column)) for column in zip(*rows, strict=True))
        return "\n".join(f"  {name:<{names}}  {value:>{values}}" for name, value in rows)

    def _rows(self) -> list[tuple[str, str]]:
        rows = [
            ("files", f"{self.files:,}"),
            ("bytes", f"{self.bytes:,}"),
            ("lines", f"{self.lines:,}"),
            ("jobs", f"{self.jobs:,} in {self.seconds:.2f} s"),
            ("jobs/s", f"{self.jobs_per_second:,.0f}"),
            ("retries", f"{self.retries:,} (1 planted)"),
            ("dead", f"{self.dead:,} (1 planted)"),
            ("rate limited jobs", f"{self.announcements:,}"),
            ("cron fires", f"{self.cron_fires:,}"),
            ("wait p50", f"{self.wait_p50_ms:,.1f} ms"),
            ("wait p99", f"{self.wait_p99_ms:,.1f} ms"),
        ]
        if self.unreadable:
            rows.append(("unreadable files", f"{self.unreadable:,}"))
        if self.changed:
            rows.append(("changed while checking", f"{self.changed:,}"))
        rows.append(("equal to a direct walk", "yes" if self.verified else "NO"))
        return rows
