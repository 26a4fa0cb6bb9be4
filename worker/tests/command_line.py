"""The command line as tests use it: in this process, on a SQLite file of the test's own."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest

from forge_jobs import Forge
from forge_jobs.cli import main

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said, and its exit code."""

    code: int
    out: str
    error: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """The lines on stdout."""
        return self.out.splitlines()


class CommandLine:
    """`forge-jobs` in a folder of its own, whose database is `queue.sqlite` there."""

    def __init__(self, folder: Path, captured: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/queue.sqlite"
        self._captured = captured
        for name in [name for name in os.environ if name.startswith(("FORGE_", "JOBS_"))]:
            patch.delenv(name)
        patch.setenv("FORGE_DATABASE_URL", self.url)
        patch.chdir(folder)

    def __call__(self, *arguments: str) -> Answer:
        """Run a command in this process."""
        self._captured.readouterr()
        code = main(arguments)
        out, error = self._captured.readouterr()
        return Answer(code, out, error)

    def fine(self, *arguments: str) -> Any:
        """Run a command that has to succeed; return its JSON document."""
        answer = self(*arguments, "--json")
        assert (answer.code, answer.error) == (0, ""), answer
        return answer.document

    def process(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """Start a command as a process, which Ctrl-C reaches as at a terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "forge_jobs.cli", *arguments],
            **{
                "cwd": self.folder,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **options,
            },
        )

    def using(self, work: Callable[[Forge], Awaitable[T]]) -> T:
        """Return what `work` returns, given a Forge that is open on the same database."""

        async def run() -> T:
            async with Forge(self.url) as forge:
                return await work(forge)

        return asyncio.run(run())


@cache
def migrated_file() -> bytes:
    """Return a database that is migrated; a copy of it costs less than to migrate another."""

    async def migrate(path: Path) -> None:
        async with Forge(f"sqlite:///{path}"):
            pass

    with TemporaryDirectory() as folder:
        path = Path(folder) / "queue.sqlite"
        asyncio.run(migrate(path))
        return path.read_bytes()


def migrated(folder: Path, captured: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> CommandLine:
    """Return a command line whose database is migrated."""
    command_line = CommandLine(folder, captured, patch)
    (folder / "queue.sqlite").write_bytes(migrated_file())
    return command_line
