"""Signals by the command line."""

from pathlib import Path

import pytest

from tests.command_line import CommandLine, migrated


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


def test_a_signal_is_sent_to_a_job_a_key_and_a_tag(cli: CommandLine):
    first = cli.fine("enqueue", "order", "--key", "order:7", "--tag", "night")["id"]
    second = cli.fine("enqueue", "order", "--tag", "night")["id"]

    assert cli.fine("jobs", "signal", "approved", '{"by": "ada"}', "--job", str(first)) == {"answer": "kept"}
    assert cli.fine("jobs", "signal", "paid", "--kind", "order", "--key", "order:7") == {"answer": "kept"}
    assert cli.fine("jobs", "signal", "approved", "--tag", "night") == {
        str(first): "duplicate",
        str(second): "kept",
    }
    assert cli.fine("jobs", "signal", "approved", "--job", str(first), "--append") == {"answer": "kept"}
    assert cli("jobs", "signal", "go", "--tag", "night").out.split() == ["answer", "jobs", "kept", "2"]
    assert cli("jobs", "signal", "go", "--tag", "day").out == "No living job has the tag 'day'.\n"


def test_a_signal_that_a_job_does_not_get_is_an_error(cli: CommandLine):
    id = str(cli.fine("enqueue", "order")["id"])
    cli.fine("jobs", "signal", "approved", "--job", id)
    again = cli("jobs", "signal", "approved", "--job", id)
    assert (again.code, again.out) == (1, "")
    assert "It was sent a signal of this name before, which counts" in again.error
    cli.fine("jobs", "cancel", id)
    assert "It has ended; nothing was sent." in cli("jobs", "signal", "paid", "--job", id).error
    assert "There is no such job" in cli("jobs", "signal", "paid", "--job", "4711").error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("approved",), "exactly one of job, key and tag"),
        (("approved", "--job", "1", "--tag", "a"), "exactly one of job, key and tag"),
        (("approved", "--key", "a"), "kind= beside key="),
        (("approved", "{", "--job", "1"), "The value"),
        (("", "--job", "1"), "The name of a signal is ''"),
    ],
)
def test_what_is_no_signal_is_refused(cli: CommandLine, arguments: tuple[str, ...], sentence: str):
    refused = cli("jobs", "signal", *arguments)
    assert refused.code == 2
    assert sentence in refused.error


def test_a_job_is_shown_with_the_signals_that_are_kept_for_it(cli: CommandLine):
    id = str(cli.fine("enqueue", "order")["id"])
    cli.fine("jobs", "signal", "approved", '{"by": "ada"}', "--job", id)

    [kept] = cli.fine("jobs", "show", id)["signals"]
    assert (kept["name"], kept["value"]) == ("approved", {"by": "ada"})
    shown = cli("jobs", "show", id).out
    assert "kept signal" in shown
    assert '{"by": "ada"}' in shown
