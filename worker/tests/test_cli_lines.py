"""Many payloads by the command line, a line each."""

import io
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.command_line import CommandLine, migrated


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


def test_a_job_is_enqueued_for_each_line_of_a_file(cli: CommandLine, tmp_path: Path):
    file = tmp_path / "people.jsonl"
    file.write_text('{"to": "ada"}\n\n{"to": "bob\\u2028"}\n["an", "array"]', encoding="utf-8")

    made = cli.fine("enqueue", "send", "--lines", str(file), "--priority", "3")

    jobs = [cli.fine("jobs", "show", str(id)) for id in made["ids"]]
    assert [job["payload"] for job in jobs] == [{"to": "ada"}, {"to": "bob\u2028"}, ["an", "array"]]
    assert {job["priority"] for job in jobs} == {3}


def test_lines_come_from_stdin_and_are_as_many_as_one_likes(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO('{"n": 1}\n' * 12_000))

    assert cli.fine("enqueue", "send", "--lines", "-")["enqueued"] == 12_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1}\n{"a": \n', "Line 2 of --lines is not JSON ("),
        ('{"a": 1}\n7\n', "Line 2 of --lines is 7, allowed is a JSON object like"),
        (
            '{"a": "\\ud83d\\ude00"}\n' * 10_001 + '{"a": "\\ud800"}\n',
            "Line 10002 of --lines has '\\ud800', which is half",
        ),
        ("\n \n", "which has no lines, allowed is a JSON object in each line."),
    ],
)
def test_a_line_that_says_no_payload_is_named_and_nothing_is_enqueued(
    cli: CommandLine, tmp_path: Path, text: str, said: str
):
    file = tmp_path / "people.jsonl"
    file.write_text(text)

    refused = cli("enqueue", "send", "--lines", str(file))

    assert refused.code == 2 and said in refused.error
    assert cli.fine("jobs", "list") == []


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (["{}"], "the argument JSON"),
        (["--payload-file", "-"], "--payload-file"),
        (["--count", "2"], "--count"),
        (["--wait", "1s"], "--wait"),
        (["--key", "once"], "--key"),
    ],
)
def test_lines_go_with_nothing_that_is_about_one_job(cli: CommandLine, more: list[str], name: str):
    refused = cli("enqueue", "send", *more, "--lines", "nowhere")

    assert (refused.code, refused.error) == (
        2,
        f"--lines is given together with {name}, allowed is one of them.\n",
    )


def test_who_interrupts_is_told_how_many_jobs_were_enqueued(cli: CommandLine, tmp_path: Path):
    file = tmp_path / "people.jsonl"
    file.write_text('{"n": 1}\n' * 200_000)

    def enqueued() -> int:
        with closing(sqlite3.connect(cli.url.removeprefix("sqlite:///"))) as connection:
            return int(connection.execute("SELECT count(*) FROM job").fetchone()[0])

    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "forge_jobs",
            "enqueue",
            "send",
            "--lines",
            str(file),
            "--database-url",
            cli.url,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        while enqueued() < 10_000:
            assert program.poll() is None
        program.send_signal(signal.SIGINT)
        out, error = program.communicate()

    found = re.match(r"The first ([\d,]+) jobs were enqueued before this, and perhaps the next 10,000", error)
    assert found is not None, (program.returncode, out[:100], error, enqueued())
    assert (out, program.returncode) == ("", 130), error
    assert 0 <= enqueued() - int(found[1].replace(",", "")) <= 10_000
