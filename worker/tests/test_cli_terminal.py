"""The command line as people sit before it: help, completion, and tables that are no wider than the terminal."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.cli import app
from forge_jobs.cli.completion import VARIABLE, Shell
from forge_jobs.model.worker import WorkerInfo
from tests.command_line import CommandLine, migrated


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("COLUMNS", "80")
    return migrated(tmp_path, capsys, monkeypatch)


def paths(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, and of every group."""
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from paths(below, (*words, name))


@pytest.mark.parametrize("words", [*paths(app)], ids=" ".join)
def test_help_is_asked_for_in_either_way_and_fits_80_columns(cli: CommandLine, words: tuple[str, ...]):
    short, long = cli(*words, "-h"), cli(*words, "--help")

    assert (short.code, short.error) == (0, "")
    assert short == long
    assert short.lines[0].startswith(" ".join(("Usage: forge-jobs", *words)))
    assert ("Common options:" in short.lines) == (not words or "COMMAND" not in short.lines[0])
    assert max(map(len, short.lines)) <= 80


def test_help_shows_arguments_and_defaults(cli: CommandLine):
    text = " ".join(cli("worker", "-h").out.split())

    assert text.count("rguments:") == 1
    assert (
        "Arguments: [APP] The program: module:attribute of its Forge, like shop:forge. [default: FORGE_APP]"
        in text
    )
    assert "--processes N How many processes to start, each a worker; only 1 on SQLite. [default: 1]" in text


COMPLETED = {
    "forge-jobs jo": {"jobs"},
    "forge-jobs jobs re": {"retry", "rerun", "repin", "remove", "reprioritise"},
    "forge-jobs jobs list --sta": {"--state"},
    "forge-jobs jobs list --state de": {"dead"},
    "forge-jobs completion ": {"bash", "zsh", "fish"},
}


@pytest.mark.parametrize("typed", COMPLETED)
def test_the_shell_completes_commands_options_and_their_values(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, typed: str
):
    words = typed.split(" ")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv(VARIABLE, "bash_complete")

    answer = cli()

    assert answer.code == 0
    assert {line.partition(",")[2] for line in answer.lines} == COMPLETED[typed]


@pytest.mark.parametrize("shell", [*Shell])
def test_a_script_tells_the_shell_how_to_complete(cli: CommandLine, shell: Shell):
    answer = cli("completion", shell.value)

    assert (answer.code, answer.error) == (0, "")
    assert VARIABLE in answer.out and "forge-jobs" in answer.out


def test_of_other_shells_it_is_said_which_there_are(cli: CommandLine):
    assert cli("completion", "tcsh").error == "The shell is 'tcsh', allowed is one of bash, zsh, fish.\n"


LONG = "a-rather-long-name-of-something-in-production"


async def fill(forge: Forge) -> None:
    """There is something in every table, with names as people give them."""
    await forge.queues.set(LONG, concurrency=12_000)
    await forge.limits.set(f"{LONG}-limit", capacity=100, per=timedelta(minutes=1))
    await forge.crons.set(
        LONG, "*/5 * * * *", kind=LONG, queue=LONG, timezone="America/Argentina/Buenos_Aires"
    )
    await forge.enqueue_many(LONG, [{"n": n} for n in range(20)], queue=LONG, group=LONG, tags=[LONG])
    dead = await forge.enqueue(LONG, queue="default")
    await forge.jobs.cancel(dead.id)
    [queue] = [queue for queue in await forge.queues.list() if queue.name == LONG]
    worker = WorkerInfo(1, f"{LONG}-worker-1-abc", f"host-{LONG}", 4711, "1", (queue.name,), (LONG,), 50)
    await forge.storage.workers.register(worker)
    await forge.kinds.pause(LONG, why="the other side is down")


@pytest.mark.parametrize(
    "words",
    [
        "stats",
        "jobs list",
        "queues list",
        "workers list",
        "kinds list",
        "cron list",
        "limits list",
        "groups list",
        "doctor",
        "db status",
    ],
)
def test_a_table_is_no_wider_than_the_terminal_and_its_columns_keep_their_names(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, words: str
):
    cli.using(fill)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")

    on_terminal = cli(*words.split())
    monkeypatch.delenv("FORCE_COLOR")
    in_a_pipe = cli(*words.split())

    assert on_terminal.code == 0
    table = [line for line in on_terminal.lines if line]
    names = [name.strip() for name in table[0].split("  ") if name.strip()]
    known = [name.strip() for name in in_a_pipe.lines[0].split("  ")]
    assert all(any(whole.startswith(name) for whole in known) for name in names)
    rows = (
        table
        if words != "doctor"
        else table[: table.index(next(line for line in table if line.startswith("workers"))) + 1]
    )
    assert max(map(len, rows)) <= 80, on_terminal.out
