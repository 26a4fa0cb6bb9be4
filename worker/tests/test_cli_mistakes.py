"""What people get wrong: one sentence, the right exit code, nothing changed, and never a traceback."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.command_line import CommandLine, migrated

WRONG_USE, FAILED = 2, 1


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


MISTAKES: list[tuple[Sequence[str], int, str]] = [
    (["frobnicate"], WRONG_USE, "No such command 'frobnicate'"),
    (["jobs"], WRONG_USE, "Missing command"),
    (["jobs", "list", "--frob"], WRONG_USE, "--frob"),
    (
        ["jobs", "list", "--state", "lost"],
        WRONG_USE,
        "--state is 'lost', allowed is one of scheduled, retrying",
    ),
    (["jobs", "list", "--limit", "many"], WRONG_USE, "--limit is 'many', allowed is a whole number from 1"),
    (["jobs", "list", "--queue", "nix"], WRONG_USE, "There is no queue 'nix'; queues: default."),
    (["jobs", "show"], WRONG_USE, "ID"),
    (["jobs", "show", "one"], WRONG_USE, "The job's id is 'one', allowed is a whole number"),
    (["jobs", "show", "99999999999999999999"], WRONG_USE, "The job's id is"),
    (["jobs", "show", "7"], FAILED, "There is no job 7."),
    (["jobs", "why", "7"], FAILED, "There is no job 7."),
    (["jobs", "cancel", "7"], FAILED, "There is no job 7."),
    (["jobs", "retry", "7"], FAILED, "There is no job 7."),
    (["jobs", "run-now", "7"], FAILED, "There is no job 7."),
    (["jobs", "delete", "7"], FAILED, "There is no job 7."),
    (["jobs", "cancel"], WRONG_USE, "either by their ids, or with --all"),
    (["jobs", "cancel", "7", "--all"], WRONG_USE, "either by their ids, or with --all"),
    (["jobs", "cancel", "7", "--kind", "x"], WRONG_USE, "go with --all, not with ids"),
    (["jobs", "cancel", "--all", "--state", "done"], WRONG_USE, "Jobs that are done cannot be cancelled"),
    (["jobs", "retry", "--all", "--yes", "--queue", "nix"], WRONG_USE, "There is no queue 'nix'"),
    (["jobs", "retry", "--all", "--yes", "--queue", "a b"], WRONG_USE, "The queue is 'a b', allowed are"),
    (
        ["jobs", "cancel", "--all"],
        WRONG_USE,
        "nobody can be asked here; pass --yes, or preview with --dry-run",
    ),
    (
        ["jobs", "retry", "--all"],
        WRONG_USE,
        "nobody can be asked here; pass --yes, or preview with --dry-run",
    ),
    (["jobs", "delete", "--all", "--state", "dead"], WRONG_USE, "nobody can be asked here; pass --yes"),
    (
        ["jobs", "delete", "--all", "--state", "dead", "--yes", "--dry-run"],
        WRONG_USE,
        "allowed is one of them",
    ),
    (["jobs", "cancel", "7", "--dry-run"], WRONG_USE, "--dry-run goes with --all, not with ids"),
    (["queues", "delete", "nix"], WRONG_USE, "There is no queue 'nix'"),
    (["queues", "delete", "default"], WRONG_USE, "Queue 'default' cannot be deleted"),
    (["queues", "delete", "nix", "--move-to", "nix2"], WRONG_USE, "There is no queue 'nix2'"),
    (["queues", "delete", "default", "--move-to", "default"], WRONG_USE, "allowed is another queue"),
    (["queues", "delete", "nix", "--drop"], WRONG_USE, "nobody can be asked here; pass --yes"),
    (
        ["queues", "delete", "nix", "--drop", "--yes", "--move-to", "default"],
        WRONG_USE,
        "allowed is one of them",
    ),
    (["jobs", "delete", "--all"], WRONG_USE, "needs a --state"),
    (["enqueue"], WRONG_USE, "KIND"),
    (["enqueue", "two words"], WRONG_USE, "The kind is 'two words', allowed are"),
    (["enqueue", "send", "{"], WRONG_USE, "The payload is not JSON"),
    (["enqueue", "send", '{"a": NaN}'], WRONG_USE, "The payload is not JSON (NaN is no number there)"),
    (["enqueue", "send", '{"a": [-Infinity]}'], WRONG_USE, "-Infinity is no number there"),
    (["enqueue", "send", '{"a": 1e999}'], WRONG_USE, "float at $.a (inf is no number in JSON)"),
    (["enqueue", "send", '{"a": {"b": 1, "b": 2}}'], WRONG_USE, "the key 'b' is there twice"),
    (["enqueue", "send", '{"a": 1, "a": 1}'], WRONG_USE, "the key 'a' is there twice"),
    (["cron", "set", "c", "@daily", "--kind", "k", "--payload", '{"a": NaN}'], WRONG_USE, "NaN is no number"),
    (["enqueue", "send", "3"], WRONG_USE, "The payload is 3, allowed is a JSON object"),
    (
        ["cron", "set", "c", "@daily", "--kind", "k", "--payload", "3"],
        WRONG_USE,
        "The payload is 3, allowed is",
    ),
    (["enqueue", "send", "[" * 100_000], WRONG_USE, "The payload is"),
    (["enqueue", "send", "--queue", "nix"], WRONG_USE, "There is no queue 'nix'"),
    (["enqueue", "send", "--queue", "a,b"], WRONG_USE, "The queue is 'a,b', allowed are"),
    (["enqueue", "send", "--delay", "soon"], WRONG_USE, "--delay is 'soon', allowed are seconds"),
    (["enqueue", "send", "--run-at", "noon"], WRONG_USE, "--run-at is 'noon', allowed is a date and time"),
    (["enqueue", "send", "--delay", "5m", "--run-at", "2030-01-01"], WRONG_USE, "delay and run_at"),
    (["enqueue", "send", "--priority", "99999"], WRONG_USE, "--priority is '99999'"),
    (
        ["enqueue", "send", "--max-attempts", "0"],
        WRONG_USE,
        "--max-attempts is '0', allowed is a whole number from 1",
    ),
    (["enqueue", "send", "--timeout", "0"], WRONG_USE, "timeout is"),
    (["enqueue", "send", "--count", "0"], WRONG_USE, "--count is '0'"),
    (["enqueue", "send", "{}", "--payload-file", "x"], WRONG_USE, "The payload is given twice"),
    (["enqueue", "send", "--payload-file", "nix.json"], WRONG_USE, "'nix.json', which cannot be read"),
    (["queues", "set", "a b"], WRONG_USE, "The queue is 'a b', allowed are"),
    (["queues", "set", "mail", "--concurrency", "-1"], WRONG_USE, "--concurrency is '-1', allowed is"),
    (["queues", "set", "mail", "--concurrency", "many"], WRONG_USE, "--concurrency is 'many', allowed is"),
    (["queues", "set", "mail", "--backoff-base", "2h"], WRONG_USE, "backoff_base is 2 h, allowed is at most"),
    (["queues", "set", "mail", "--done-retention", "-1d"], WRONG_USE, "--done-retention is '-1d'"),
    (["queues", "pause", "nix"], WRONG_USE, "There is no queue 'nix'"),
    (["cron", "set", "c", "* * *", "--kind", "k"], WRONG_USE, "* * *"),
    (["cron", "set", "c", "61 * * * *", "--kind", "k"], WRONG_USE, "61"),
    (["cron", "set", "c", "@daily", "--kind", "k", "--timezone", "Mars/Olympus"], WRONG_USE, "Mars/Olympus"),
    (["cron", "set", "c", "@daily"], WRONG_USE, "--kind"),
    (["cron", "set", "c", "@daily", "--kind", "k", "--queue", "nix"], WRONG_USE, "There is no queue 'nix'"),
    (["cron", "set", "c", "@daily", "--kind", "k", "--missed", "some"], WRONG_USE, "--missed is 'some'"),
    (["cron", "trigger", "nix"], WRONG_USE, "There is no cron 'nix'; crons: none."),
    (["cron", "delete", "nix"], WRONG_USE, "There is no cron 'nix'"),
    (["limits", "set", "slack"], WRONG_USE, "--capacity"),
    (["limits", "set", "slack", "--capacity", "0", "--per", "1m"], WRONG_USE, "--capacity is '0'"),
    (
        ["limits", "set", "slack", "--capacity", "5"],
        WRONG_USE,
        "Neither of --per and --refill is given, allowed is one",
    ),
    (
        ["limits", "set", "slack", "--capacity", "5", "--per", "1m", "--refill", "1"],
        WRONG_USE,
        "Each of --per and --refill is given, allowed is one",
    ),
    (["limits", "empty", "nix"], WRONG_USE, "There is no rate limit 'nix'"),
    (["limits", "delete", "nix"], WRONG_USE, "There is no rate limit 'nix'"),
    (["stats", "--interval", "0"], WRONG_USE, "--interval is '0'"),
    (["db", "drop"], WRONG_USE, "--force"),
    (["db", "reset"], WRONG_USE, "--force"),
    (["worker"], WRONG_USE, "No program is named, allowed is module:attribute"),
    (["worker", "shop"], WRONG_USE, "The program is 'shop', allowed is module:attribute"),
    (["worker", "nix_of_that:forge", "--queues", "a"], WRONG_USE, "There is no module 'nix_of_that'"),
    (["worker", "os:path", "--queues", "a"], WRONG_USE, "os:path is module, allowed is a Forge"),
    (["worker", "os:nix", "--queues", "a"], WRONG_USE, "Module 'os' has no 'nix'"),
    (["worker", "os:path", "--queues", "a,,b"], WRONG_USE, "The queue is ''"),
    (["worker", "os:path", "--concurrency", "0"], WRONG_USE, "--concurrency is '0'"),
    (["worker", "os:path", "--log-level", "loud"], WRONG_USE, "--log-level is 'loud'"),
    (["worker", "os:path", "--heartbeat", "0"], WRONG_USE, "--heartbeat is '0'"),
    (["worker", "os:path", "--metrics-port", "65536"], WRONG_USE, "--metrics-port is '65536'"),
    (["demo", "/nix/of/that"], WRONG_USE, "/nix/of/that"),
    (
        ["jobs", "list", "--database-url", "mysql://root:s3cret@host/db"],
        WRONG_USE,
        "--database-url is 'mysql://root:***@host/db'",
    ),
    (["jobs", "list", "--database-url", "garbage"], WRONG_USE, "--database-url is"),
    (["jobs", "list", "--database-url", "sqlite:///nix.sqlite"], FAILED, "run: forge-jobs db migrate"),
    (["jobs", "list", "--schema", "pg_mine"], WRONG_USE, "--schema is 'pg_mine'"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "said"), MISTAKES, ids=[" ".join(each[0])[:70] for each in MISTAKES]
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    cli: CommandLine, arguments: Sequence[str], code: int, said: str
):
    answer = cli(*arguments)

    assert (answer.code, answer.out) == (code, "")
    assert said in answer.error
    assert len(answer.error.splitlines()) == 1
    assert answer.error[0].isupper() or answer.error.startswith(
        ("--", "forge-jobs", "backoff", "delay", "timeout", "os:")
    )
    assert "Traceback" not in answer.error
    assert "s3cret" not in answer.error


@pytest.mark.parametrize(
    ("arguments", "code", "said"), MISTAKES[::3], ids=[" ".join(each[0])[:70] for each in MISTAKES[::3]]
)
def test_with_json_a_mistake_is_a_document_on_stderr(
    cli: CommandLine, arguments: Sequence[str], code: int, said: str
):
    answer = cli(*arguments, "--json")

    assert (answer.code, answer.out) == (code, "")
    assert said in json.loads(answer.error)["error"]


def test_mistakes_leave_no_trace(cli: CommandLine):
    before = (cli.fine("jobs", "list"), cli.fine("queues", "list"), cli.fine("limits", "list"))

    for arguments, _, _ in MISTAKES:
        if arguments[0] not in ("worker", "demo"):
            cli(*arguments)

    assert (cli.fine("jobs", "list"), cli.fine("queues", "list"), cli.fine("limits", "list")) == before
    assert sorted(path.name for path in cli.folder.iterdir() if "queue.sqlite" not in path.name) == []


def test_a_job_in_the_wrong_state_is_a_failure(cli: CommandLine):
    id = str(cli.fine("enqueue", "send")["id"])

    retried = cli("jobs", "retry", id)

    assert retried.code == FAILED
    assert f"Job {id} is pending" in retried.error
    assert cli("jobs", "cancel", id).code == 0
    assert cli("jobs", "cancel", id).code == FAILED
    assert cli("jobs", "run-now", id).code == FAILED


def test_of_several_jobs_each_is_tried_and_what_failed_is_said(cli: CommandLine):
    id = str(cli.fine("enqueue", "send")["id"])

    answer = cli("jobs", "cancel", "98", id, "99", "--json")

    assert answer.code == FAILED
    assert answer.document == [{"id": int(id), "result": "dead"}]
    assert json.loads(answer.error) == {"error": "There is no job 98. There is no job 99."}


@pytest.mark.parametrize(
    "arguments", [["jobs", "list"], ["enqueue", "send"], ["stats"], ["queues", "set", "mail"]]
)
def test_a_database_that_is_not_migrated_is_refused_and_not_made(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: Sequence[str],
):
    cli = CommandLine(tmp_path, capsys, monkeypatch)

    answer = cli(*arguments)

    assert answer.code == FAILED
    assert answer.error.endswith("run: forge-jobs db migrate\n")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_a_sentence(cli: CommandLine):
    (cli.folder / "notes.txt").write_text("Not a database, but long enough to be taken for one.\n" * 100)

    answer = cli("jobs", "list", "--database-url", f"sqlite:///{cli.folder}/notes.txt")

    assert answer.code == FAILED
    assert len(answer.error.splitlines()) == 1


def test_a_server_that_is_away_is_a_sentence_without_the_password(cli: CommandLine):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]

        answer = cli("jobs", "list", "--database-url", f"postgresql://ada:s3cret@127.0.0.1:{port}/jobs")

    assert answer.code == FAILED
    assert len(answer.error.splitlines()) == 1
    assert "s3cret" not in answer.error


def test_a_setting_that_is_wrong_is_named(cli: CommandLine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORGE_HEARTBEAT_SECONDS", "often")

    answer = cli("jobs", "list")

    assert answer.code == WRONG_USE
    assert "FORGE_HEARTBEAT_SECONDS is 'often'" in answer.error


def test_ctrl_c_is_quiet(cli: CommandLine):
    watching = cli.process("stats", "--watch", "--json", "--interval", "100ms")
    assert watching.stdout is not None
    json.loads(watching.stdout.readline())

    watching.send_signal(signal.SIGINT)
    out, error = watching.communicate(timeout=30)

    assert watching.returncode == 130
    assert error == ""
    assert all(json.loads(line) for line in out.splitlines())


def test_a_reader_that_has_seen_enough_is_no_error(cli: CommandLine):
    cli("enqueue", "send", "--count", "2000")
    reading, writing = os.pipe()
    os.close(reading)

    listing = cli.process("jobs", "list", "--limit", "2000", stdout=writing)
    os.close(writing)
    _, error = listing.communicate(timeout=30)

    assert listing.returncode == FAILED
    assert error == ""


def test_ctrl_c_is_quiet_from_the_first_moment_on(cli: CommandLine):
    """While Python still imports: the process is stopped then, and hears what came meanwhile when it goes on."""
    (cli.folder / "sitecustomize.py").write_text(EARLY_INTERRUPT)

    listing = cli.process("jobs", "list", env={**os.environ, "PYTHONPATH": str(cli.folder)})
    out, error = listing.communicate(timeout=60)

    assert (listing.returncode, out, error) == (130, "", "")


EARLY_INTERRUPT = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "click":  # one of the first things that the command line imports
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_output_that_cannot_be_written_is_a_sentence(cli: CommandLine, options: Sequence[str]):
    with open("/dev/full", "w") as full:
        listing = cli.process("queues", "list", *options, stdout=full)
        _, error = listing.communicate(timeout=60)

    assert listing.returncode == FAILED
    assert "The output cannot be written: No space left on device." in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_stream_that_is_closed_is_no_error(cli: CommandLine, closed: str):
    shell = f"{sys.executable} -m forge_jobs queues list {closed} && ! {sys.executable} -m forge_jobs jobs show 7 {closed}"

    done = subprocess.run(shell, shell=True, cwd=cli.folder, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["stats"], ["jobs", "list"], ["queues", "pause", "default"], ["db", "migrate"], ["enqueue", "send"]],
)
def test_a_variable_that_means_nothing_is_warned_of_by_every_command(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]
):
    monkeypatch.setenv("FORGE_QUEUE", "s3cret")
    monkeypatch.setenv("FORGE_OPERATOR_NAMESPACE", "shop")

    answer = cli(*arguments)
    assert (answer.code, answer.error) == (0, "FORGE_QUEUE is not a setting; did you mean FORGE_QUEUES?\n")

    answer = cli(*arguments, "--json")
    assert json.loads(answer.error) == {"warning": "FORGE_QUEUE is not a setting; did you mean FORGE_QUEUES?"}
    assert answer.document is not None


def test_a_variable_that_means_nothing_hides_no_mistake(cli: CommandLine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORGE_DATABASE", "s3cret")

    answer = cli("jobs", "show", "7")

    assert answer.code == FAILED
    assert answer.error.splitlines() == [
        "FORGE_DATABASE is not a setting; did you mean FORGE_DATABASE_URL?",
        "There is no job 7.",
    ]
