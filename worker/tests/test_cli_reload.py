"""`forge-jobs worker --reload` as a process: it follows its program."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import pytest

from forge_jobs.worker.reloading import look
from tests.command_line import CommandLine, migrated

PROGRAM = """
from forge_jobs import Forge

forge = Forge()

@forge.handler
async def greet() -> str:
    return {greeting!r}
"""
PATIENCE = 60  # seconds; a safeguard, nothing is measured


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    command_line = migrated(tmp_path, capsys, monkeypatch)
    (tmp_path / "shop.py").write_text(PROGRAM.format(greeting="hello"))
    return command_line


@contextmanager
def reloading(cli: CommandLine) -> "Iterator[tuple[subprocess.Popen[str], Queue[str]]]":
    """Such a worker, which serves by now, and the lines that it says, as they come; in the end all of it has ended."""
    worker = cli.process("worker", "shop:forge", "--queues", "default", "--reload")
    lines: Queue[str] = Queue()

    def read() -> None:
        assert worker.stderr is not None
        for line in worker.stderr:  # until no process of it is there
            lines.put(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with worker:
        wait_for(lines, "serves default")
        try:
            yield worker, lines
        finally:
            worker.send_signal(signal.SIGTERM)
            reader.join(PATIENCE)


def wait_for(lines: "Queue[str]", text: str) -> None:
    while text not in lines.get(timeout=PATIENCE):
        pass


def test_a_worker_starts_anew_when_its_program_changes_also_when_that_was_broken(cli: CommandLine):
    shop = cli.folder / "shop.py"
    with reloading(cli) as (worker, lines):
        assert cli.fine("enqueue", "greet", "--wait", "60s")["result"] == "hello"

        shop.write_text("this is no Python")
        wait_for(lines, "shop.py has changed; the worker is started anew.")
        wait_for(lines, "The program 'shop' cannot be imported: SyntaxError")
        wait_for(lines, "The worker ended with 2; it is started again when a file changes.")

        shop.write_text(PROGRAM.format(greeting="good evening"))
        wait_for(lines, "serves default")
        assert cli.fine("enqueue", "greet", "--wait", "60s")["result"] == "good evening"
    assert worker.returncode == 0
    assert cli.fine("workers", "list") == []


def test_a_file_that_changes_all_the_time_is_said_and_the_others_are_followed(cli: CommandLine):
    log, is_over = cli.folder / "made.py", threading.Event()

    def change() -> None:
        length = 0
        while not is_over.wait(0.05):
            length += 1
            log.write_text("#" * length)

    writer = threading.Thread(target=change)
    with reloading(cli) as (worker, lines):
        writer.start()
        try:
            wait_for(lines, "made.py changes all the time; it is not looked at any more.")
            (cli.folder / "shop.py").write_text(PROGRAM.format(greeting="good evening"))
            wait_for(lines, "shop.py has changed; the worker is started anew.")
            wait_for(lines, "serves default")
        finally:
            is_over.set()
            writer.join()
    assert worker.returncode == 0


def test_its_worker_ends_when_it_is_killed(cli: CommandLine):
    with reloading(cli) as (worker, lines):
        os.kill(worker.pid, signal.SIGKILL)

        wait_for(lines, "its parent is gone")
        wait_for(lines, "stopped, 0 jobs were handed back")


def test_files_that_are_not_of_the_program_start_nothing_anew(tmp_path: Path):
    for name in (
        "shop.py",
        "site/pages.py",
        ".git/hook.py",
        "node_modules/a.py",
        "env/lib/b.py",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("")
    (tmp_path / "env/pyvenv.cfg").write_text("")

    assert set(look(tmp_path)) == {"shop.py", "site/pages.py"}


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (["--processes", "2"], "--processes"),
        (["--until-empty"], "--until-empty"),
        (["--max-jobs", "5"], "--max-jobs or --max-rss"),
    ],
)
def test_it_goes_with_one_process_that_does_not_end_by_itself(cli: CommandLine, more: list[str], name: str):
    refused = cli("worker", "shop:forge", "--queues", "default", "--reload", *more)

    assert (refused.code, refused.error) == (
        2,
        f"--reload is given together with {name}, allowed is one of them.\n",
    )
