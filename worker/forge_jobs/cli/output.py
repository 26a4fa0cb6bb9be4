"""What a command prints: one Report, as a table on a terminal, as plain columns, or as one JSON document."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from forge_jobs.cli.table import Rows, on_terminal, plain
from forge_jobs.errors import ForgeError
from forge_jobs.system.terminal import is_terminal, styled, width


@dataclass(frozen=True, slots=True)
class Report:
    """What a command has to say: `document` to machines, `parts` to people; `errors` are what failed of several."""

    document: Any
    parts: Sequence[Rows | str] = ()
    errors: Sequence[str] = field(default=())


class Unwritten(ForgeError):
    """What a command had to say cannot be written; what it did is done."""

    def __init__(self, why: OSError) -> None:
        super().__init__(f"The output cannot be written: {why.strerror or why}.")


def print_report(report: Report, *, as_json: bool) -> None:
    """The report is on stdout; nothing when all of it failed. Raises Unwritten, BrokenPipeError."""
    if sys.stdout is None:  # it was closed: nobody wants to know
        return
    try:
        _print(report, as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten(error) from error


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        if report.document is not None:
            write(sys.stdout, json.dumps(report.document, ensure_ascii=False))
        return
    show = rendered if is_terminal(sys.stdout) else plain
    for part in report.parts:
        write(sys.stdout, show(part))


def print_error(sentence: str, *, as_json: bool) -> None:
    """The error is on stderr, as one line, or as one JSON document."""
    _print_aside("error", sentence, "red", as_json)


def print_warning(sentence: str, *, as_json: bool) -> None:
    """The warning is on stderr, as one line, or as one JSON document."""
    _print_aside("warning", sentence, "yellow", as_json)


def _print_aside(what: str, sentence: str, colour: str, as_json: bool) -> None:
    if sys.stderr is None:
        return
    with suppress(OSError):  # nobody reads it, and there is nowhere else to say so
        if as_json:
            write(sys.stderr, json.dumps({what: sentence}, ensure_ascii=False))
        else:
            write(sys.stderr, styled(sentence, fg=colour) if is_terminal(sys.stderr) else sentence)


def write(stream: Any, text: str) -> None:
    """`text` is written as a line, with what the stream's encoding lacks replaced; nothing when it was closed."""
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def rendered(part: Rows | str) -> str:
    """Return the part for a terminal, as wide as that."""
    return part if isinstance(part, str) else on_terminal(part, width())


def rendered_all(report: Report) -> str:
    """Return the whole report for a terminal."""
    return "\n".join(rendered(part) for part in report.parts)
