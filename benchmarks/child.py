"""Each side of a measurement runs in a process of its own, so that none inherits from another.

A side is a function in `benchmarks.sides`, called by name ("forge.work_through") with keyword
arguments; what it returns comes back as JSON, on the last line of its standard output.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]
PATIENCE = 900.0  # seconds


class SideFailed(Exception):
    """A side did not come to its end; the text is the last that it said."""


class Child:
    """A running side. One that waits for the end of its standard input is told by `finish`."""

    def __init__(self, side: str, **arguments: Any) -> None:
        self.side = side
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sides", side, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=clean_environment(),
            cwd=ROOT,
        )

    def line(self) -> Any:
        """Wait for the next line that the side says; return what it holds."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SideFailed(f"{self.side} failed: {self._last_words()}")
        return json.loads(line)

    def finish(self) -> Any:
        """Tell the side to come to its end; return the last that it says."""
        try:
            said, _ = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise SideFailed(f"{self.side} did not end within {PATIENCE:g} s") from error
        if self._process.returncode != 0 or not said:
            raise SideFailed(f"{self.side} failed: {self._last_words()}")
        return json.loads(said.splitlines()[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        return self._errors.read().strip()[-2000:] or f"exit code {self._process.returncode}"


def run(side: str, **arguments: Any) -> Any:
    """Run a side to its end; return what it returns. Raises SideFailed."""
    with Child(side, **arguments) as child:
        return child.finish()


def clean_environment() -> dict[str, str]:
    """Return our environment without what would configure a side from outside."""
    prefixes = ("FORGE_", "JOBS_", "PG", "HUEY_")
    return {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
