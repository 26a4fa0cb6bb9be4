"""What a report looks like: on a terminal, in a pipe, and as JSON."""

import io
import json
import sys

import pytest

from forge_jobs.cli.output import Report, print_error, print_report
from forge_jobs.cli.table import Rows, on_terminal

ROWS = Rows(
    ["id", "state", "kind", "error"],
    [["1", "dead", "send", ""], ["1,000", "pending", "a [red]kind", ""]],
    "No jobs.",
    frozenset({"id"}),
)


def on_a_terminal(rows: Rows, monkeypatch: pytest.MonkeyPatch, width: int = 60) -> str:
    monkeypatch.setenv("TERM", "xterm-256color")
    return on_terminal(rows, width)


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


def test_a_table_is_as_wide_as_the_terminal_and_says_all_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    error = "ValueError: the address of the customer is not known, and neither is that of the warehouse"
    rows = Rows(
        ["id", "kind", "error"], [["12,345", "a" * 70, error], ["7", "send", ""]], right=frozenset({"id"})
    )

    lines = on_a_terminal(rows, monkeypatch, width=80).splitlines()

    assert max(map(len, lines)) <= 80
    assert "".join("".join(line.split()) for line in lines[1:]).count("a" * 20) >= 1
    assert sum(line.count("a" * 10) for line in lines) >= 1
    said = " ".join(" ".join(line[lines[0].index("error") :].split()) for line in lines[1:])
    assert " ".join(said.split()) == error
    assert lines[0].split() == ["id", "kind", "error"]


def test_columns_in_which_nothing_stands_are_left_out_and_the_first_never(monkeypatch: pytest.MonkeyPatch):
    rows = Rows(["id", "done", "dead", "oldest", "kind"], [["", "0", "1", "-", ""], ["", "0", "0", "-", ""]])
    monkeypatch.setenv("NO_COLOR", "1")

    wide, narrow = (on_a_terminal(rows, monkeypatch, width).splitlines()[0].split() for width in (60, 10))

    assert wide == ["id", "done", "dead"]
    assert narrow == ["id", "dead"]


def test_a_cell_cannot_move_the_cursor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\\x1b[2J" in on_a_terminal(Rows(["kind"], [["\x1b[2Jgone"]]), monkeypatch)
