"""`forge-jobs worker` as a process: it runs a program's jobs, and stops as it should."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.command_line import CommandLine, migrated

PROGRAM = """
import asyncio
from forge_jobs import Dead, Forge

forge = Forge()
not_a_forge = 1

@forge.handler
async def greet(name: str) -> str:
    return f"Hello {name}"

@forge.handler
async def refuse() -> None:
    raise Dead("never")

@forge.handler
async def sleep() -> None:
    await asyncio.sleep(600)
"""


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    command_line = migrated(tmp_path, capsys, monkeypatch)
    (tmp_path / "shop.py").write_text(PROGRAM)
    return command_line


def test_a_worker_runs_what_waits_and_stops_when_nothing_is_left(cli: CommandLine):
    done = cli.fine("enqueue", "greet", '{"name": "Ada"}')["id"]
    dead = cli.fine("enqueue", "refuse")["id"]

    worker = cli.process("worker", "shop:forge", "--queues", "default", "--until-empty")
    out, error = worker.communicate(timeout=60)

    assert (worker.returncode, out) == (0, ""), error
    assert cli.fine("jobs", "show", str(done))["result"] == "Hello Ada"
    assert cli.fine("jobs", "show", str(dead))["error"] == "never"
    assert cli("jobs", "why", str(done)).lines[0] == f"Job {done} is done."


def test_the_program_and_the_queues_may_come_from_the_environment(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
):
    id = cli.fine("enqueue", "greet", '{"name": "Ada"}')["id"]
    with monkeypatch.context() as environment:
        environment.setenv("FORGE_APP", "shop:forge")
        environment.setenv("FORGE_QUEUES", "default")
        worker = cli.process("worker", "--until-empty")
        worker.communicate(timeout=60)

    assert worker.returncode == 0
    assert cli.fine("jobs", "show", str(id))["state"] == "done"


def test_the_database_that_the_command_names_is_the_one_that_the_program_uses(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
):
    id = cli.fine("enqueue", "greet", '{"name": "Ada"}')["id"]
    monkeypatch.delenv("FORGE_DATABASE_URL")

    worker = cli.process(
        "worker", "shop:forge", "--queues", "default", "--until-empty", "--database-url", cli.url
    )
    worker.communicate(timeout=60)

    assert cli.fine("jobs", "show", str(id), "--database-url", cli.url)["state"] == "done"
    assert not (cli.folder / "jobs").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_hands_back_what_runs(cli: CommandLine, number: signal.Signals):
    id = str(cli.fine("enqueue", "sleep")["id"])
    options = ("--queues", "default", "--grace", "100ms", "--prefix", "shop", "--worker-version", "7")
    worker = cli.process("worker", "shop:forge", *options, "--log-format", "JSON", "--log-level", "Debug")
    _wait_for(worker, "starts")

    running = cli("jobs", "why", id).lines[1]
    listed = cli.fine("workers", "list")
    worker.send_signal(number)
    _, error = worker.communicate(timeout=60)

    assert worker.returncode == 0, error
    assert running.startswith("It was claimed by shop-worker-7-")
    assert [(each["queues"], each["in_progress"]) for each in listed] == [(["default"], 1)]
    job = cli.fine("jobs", "show", id)
    assert (job["state"], job["attempt"]) == ("pending", 0)
    assert cli.fine("workers", "list") == []


def test_a_worker_logs_json_lines_when_asked(cli: CommandLine):
    cli.fine("enqueue", "greet", '{"name": "Ada"}')

    worker = cli.process(
        "worker", "shop:forge", "--queues", "default", "--until-empty", "--log-format", "json"
    )
    _, error = worker.communicate(timeout=60)

    lines = [json.loads(line) for line in error.splitlines()]
    assert any(line.get("kind") == "greet" and line.get("outcome") == "done" for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop:not_a_forge", "--queues", "default"], "shop:not_a_forge is int, allowed is a Forge."),
        (["shop:frog", "--queues", "default"], "Module 'shop' has no 'frog'; a Forge there: forge."),
        (["shop:forge"], "No queue is declared"),
        (
            ["shop:forge", "--queues", "default", "--processes", "2"],
            "--processes is 2, allowed on SQLite is 1",
        ),
        (["shop:forge", "--queues", "default", "--stale", "1s"], "stale"),
    ],
)
def test_a_worker_that_is_used_wrongly_says_so_and_ends_with_2(
    cli: CommandLine, arguments: list[str], said: str
):
    worker = cli.process("worker", *arguments)
    out, error = worker.communicate(timeout=60)

    assert (worker.returncode, out) == (2, "")
    assert said in error
    assert len(error.splitlines()) == 1


def _wait_for(worker: "subprocess.Popen[str]", text: str) -> None:
    """Return when the worker has logged `text`; what it logs first is read and dropped."""
    assert worker.stderr is not None
    for line in worker.stderr:
        if text in line:
            return
    raise AssertionError(f"the worker ended without {text!r}")
