"""What a report looks like: on a terminal, in a pipe, and as JSON."""

import io
import json
import sys

import pytest
from rich.console import Console

from forge_jobs.cli.output import Report, Rows, print_error, print_report, rendered

ROWS = Rows(
    ["id", "state", "kind", "error"],
    [["1", "dead", "send", ""], ["1,000", "pending", "a [red]kind", ""]],
    "No jobs.",
    frozenset({"id"}),
)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def on_a_terminal(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    Console(file=stream, highlight=False, width=60).print(rendered(rows))
    return stream.getvalue()


def test_in_a_pipe_columns_line_up_and_nothing_else(capsys: pytest.CaptureFixture[str]):
    print_report(Report([], [ROWS, "Done."]), as_json=False)

    assert capsys.readouterr().out.splitlines() == [
        "   id  state    kind         error",
        "    1  dead     send",
        "1,000  pending  a [red]kind",
        "Done.",
    ]


def test_an_empty_table_is_a_sentence(capsys: pytest.CaptureFixture[str]):
    print_report(Report([], [Rows(["id"], [], "No jobs.")]), as_json=False)

    assert capsys.readouterr().out == "No jobs.\n"


def test_json_is_one_document_and_nothing_else(capsys: pytest.CaptureFixture[str]):
    print_report(Report([{"kind": "å"}], [ROWS]), as_json=True)

    assert json.loads(capsys.readouterr().out) == [{"kind": "å"}]


def test_on_a_terminal_states_have_colours_and_empty_columns_are_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)

    shown = on_a_terminal(ROWS, monkeypatch)

    assert "\x1b[31mdead" in shown
    assert "a [red]kind" in shown
    assert "error" not in shown


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\x1b[31m" not in on_a_terminal(ROWS, monkeypatch)


def test_what_the_streams_encoding_lacks_is_spelled_out(monkeypatch: pytest.MonkeyPatch):
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", ascii_only)

    print_error("There is no queue 'å\ud800'.", as_json=False)

    ascii_only.flush()
    assert ascii_only.buffer.getvalue() == b"There is no queue '\\xe5\\ud800'.\n"
