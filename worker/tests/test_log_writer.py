"""Log lines, whoever reads them or not, and whatever is in them."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from forge_jobs.telemetry.log_format import JsonFormatter, TextFormatter
from forge_jobs.telemetry.log_writer import MOST_WAITING, LogWriter

PIPE = 64 * 1024  # bytes that a pipe holds


@pytest.fixture
def pipe() -> Iterator[tuple[int, LogWriter]]:
    """The reading end of a pipe, and a handler that writes JSON to the other."""
    reading, writing = os.pipe()
    lines = LogWriter(writing)
    lines.setFormatter(JsonFormatter())
    yield reading, lines
    os.close(reading)
    lines.close()
    os.close(writing)


def record(message: Any, *args: Any, **facts: Any) -> logging.LogRecord:
    return logging.getLogger("shop").makeRecord(
        "shop", logging.WARNING, __file__, 1, message, args, None, extra=facts
    )


def read_until(reading: int, text: str) -> str:
    """Read until what was read holds `text`."""
    said = b""
    while text.encode() not in said:
        said += os.read(reading, 65536)
    return said.decode()


def test_lines_are_written_in_their_order(pipe: tuple[int, LogWriter]) -> None:
    reading, lines = pipe
    for number in range(2000):
        lines.emit(record(f"line {number}"))

    said = read_until(reading, "line 1999").splitlines()

    assert [json.loads(line)["message"] for line in said] == [f"line {number}" for number in range(2000)]


def test_a_pipe_that_nobody_reads_costs_lines_and_nobody_waits(pipe: tuple[int, LogWriter]) -> None:
    reading, lines = pipe
    long = "x" * 10_000
    handed_in = 2 * MOST_WAITING // len(long)

    for _ in range(handed_in):
        lines.emit(record(long))  # would wait for ever
    said = [json.loads(line) for line in read_until(reading, "log lines were dropped").splitlines()]

    [dropped] = [line["dropped"] for line in said if "dropped" in line]
    assert said[-1]["message"] == f"{dropped} log lines were dropped, since nobody read them"
    assert len(said) - 1 + dropped == handed_in
    lines.emit(record("again"))
    assert "again" in read_until(reading, "again")


def test_a_program_ends_though_nobody_reads_its_last_lines() -> None:
    reading, writing = os.pipe()
    program = (
        "import logging, sys; from forge_jobs.telemetry import logs; from forge_jobs.telemetry.telemetry import Telemetry\n"
        "logs.subscribe(Telemetry(), stream=sys.stderr)\n"
        "for _ in range(100): logging.getLogger('shop').warning('x' * 10_000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=writing)
    os.close(writing)

    assert process.wait(timeout=60) == 0
    os.close(reading)


def test_a_reader_that_is_gone_harms_nobody(pipe: tuple[int, LogWriter]) -> None:
    _, lines = pipe
    reading, writing = os.pipe()
    os.close(reading)
    lines._descriptor = writing

    lines.emit(record("to nobody"))
    lines.flush()

    os.close(writing)


def test_a_fork_writes_lines_of_its_own(pipe: tuple[int, LogWriter]) -> None:
    reading, lines = pipe
    lines.emit(record("parent"))
    read_until(reading, "parent")

    if (child := os.fork()) == 0:
        lines.emit(record("child"))
        lines.flush()
        os._exit(0)
    os.waitpid(child, 0)

    assert "child" in read_until(reading, "child")
    assert threading.active_count() >= 1


class Unprintable:
    """Raises whenever somebody looks at it."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


endless: dict[str, Any] = {}
endless["self"] = endless
deep: list[Any] = []
for _ in range(5000):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ({"inside": float("-inf"), (1, 2): 3}, {"inside": "-inf", "1,2": 3}),
        ({1: "a", "1": "b"}, {"1": "a", "1_": "b"}),
        (2**300, str(2**300)),
        (Unprintable(), "<Unprintable that cannot be printed: RuntimeError>"),
        (ValueError(Unprintable()), "<ValueError that cannot be printed: RuntimeError>"),
        ("half \ud800", "half \\ud800"),
        ("a\u2028b\x85c\nd", "a\u2028b\x85c\nd"),
        ("x" * 100_000, "x" * 16_000 + "… (100000 characters)"),
        (object, "<class 'object'>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_json_line_can_hold_anything(value: Any, said: Any) -> None:
    line = JsonFormatter().format(record("fact", fact=value))

    assert len(line.splitlines()) == 1
    assert _strictly(line)["fact"] == said


@pytest.mark.parametrize("value", [endless, deep, {"deep": deep}, list(range(100_000))])
def test_what_ends_nowhere_is_cut(value: Any) -> None:
    for formatter in (JsonFormatter(), TextFormatter()):
        assert len(formatter.format(record("fact", fact=value))) < 1_000_000
    _strictly(JsonFormatter().format(record("fact", fact=value)))


@pytest.mark.parametrize(
    ("message", "args"),
    [("%s %d", ("a", "no number")), ("100 %", ("a",)), (Unprintable(), ()), ("%s", (Unprintable(),))],
    ids=["wrong argument", "no place", "message", "argument"],
)
def test_a_message_that_cannot_be_made_is_still_a_line(message: Any, args: tuple[Any, ...]) -> None:
    assert _strictly(JsonFormatter().format(record(message, *args)))["message"]
    assert "WARNING" in TextFormatter().format(record(message, *args))


def test_a_fact_that_is_called_like_one_of_ours_is_kept_beside_it() -> None:
    line = _strictly(JsonFormatter().format(record("said", level=7, time="late", logger="mine")))

    assert (line["level"], line["level_"]) == ("warning", 7)
    assert (line["logger"], line["logger_"], line["time_"]) == ("shop", "mine", "late")


def _strictly(line: str) -> Any:
    """Parse JSON as the standard has it: without NaN and the infinities, each key once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs), pairs
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(line, parse_constant=refuse, object_pairs_hook=once)
