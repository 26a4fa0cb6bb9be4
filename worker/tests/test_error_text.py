"""What is kept of an exception: why it happened, whatever the exception is made of."""

import sys
from typing import Any

import pytest

from forge_jobs.model.error_text import LONGEST_ERROR, describe, sentence


def raised(error: BaseException) -> BaseException:
    """Return the exception as it is after it was raised."""
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_exception_is_one_line_and_then_its_traceback() -> None:
    first, *rest = describe(raised(ValueError("no"))).splitlines()

    assert first == "ValueError: no"
    assert "in raised" in "".join(rest)
    assert "ValueError" not in "".join(rest)


def test_a_cause_is_named_before_any_traceback() -> None:
    try:
        try:
            _ = dict[str, int]()["the real reason"]
        except KeyError as error:
            raise RuntimeError("could not load") from error
    except RuntimeError as error:
        lines = describe(error).splitlines()

    assert lines[:2] == ["RuntimeError: could not load", "caused by KeyError: 'the real reason'"]
    assert sum("test_error_text.py" in line for line in lines) == 2


def test_what_was_being_handled_is_named_unless_it_was_suppressed() -> None:
    def fail(cause: Any) -> BaseException:
        try:
            int("the real reason")
        except ValueError:
            if cause is None:
                return raised(RuntimeError("could not parse"))
            try:
                raise RuntimeError("could not parse") from None
            except RuntimeError as error:
                return error
        raise AssertionError("a text is no number")

    assert describe(fail(None)).splitlines()[1].startswith("while handling ValueError: invalid literal")
    assert "the real reason" not in describe(fail("suppressed"))


def test_all_members_of_a_group_are_named_with_their_causes() -> None:
    member = ValueError("two")
    member.__cause__ = OSError("the disk")
    group = ExceptionGroup("many", [TypeError("one"), ExceptionGroup("inner", [member]), KeyError("three")])

    assert describe(raised(group)).splitlines()[:6] == [
        "ExceptionGroup: many (3 sub-exceptions)",
        "with TypeError: one",
        "with ExceptionGroup: inner (1 sub-exception)",
        "with ValueError: two",
        "caused by OSError: the disk",
        "with KeyError: 'three'",
    ]


def test_the_first_line_of_each_link_comes_before_the_rest_of_a_long_one() -> None:
    error = RuntimeError("begin\n" + "x" * 100_000)
    error.__cause__ = ValueError("y" * 100_000)
    error.__cause__.__cause__ = OSError("the real reason")

    told = describe(raised(error))

    assert len(told) <= LONGEST_ERROR
    assert told.startswith("RuntimeError: begin\ncaused by ValueError: yyy")
    assert "\ncaused by OSError: the real reason\n" in told


def test_notes_are_kept() -> None:
    error = ValueError("no")
    error.add_note("while reading line 7")

    assert "while reading line 7" in describe(error)


class Silent(Exception):
    def __str__(self) -> str:
        raise KeyError("x")

    __repr__ = __str__


class Exits(Exception):
    def __str__(self) -> str:
        sys.exit(3)


class Text(str):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __getitem__(self, index: Any) -> str:
        raise RuntimeError("no item")


class Odd(Exception):
    def __str__(self) -> str:
        return Text("odd")


def nested(levels: int) -> BaseException:
    error: BaseException = ValueError("the real reason")
    for level in range(levels):
        error = BaseExceptionGroup(f"level {level}", [error])
    return error


def chained(levels: int) -> BaseException:
    error: BaseException = ValueError("the real reason")
    for level in range(levels):
        cause, error = error, RuntimeError(f"level {level}")
        error.__cause__ = cause
    return error


def circle() -> BaseException:
    one, two = ValueError("one"), TypeError("two")
    one.__cause__, two.__cause__ = two, one
    return one


def recursion() -> BaseException:
    def down(level: int) -> None:
        up(level + 1)

    def up(level: int) -> None:
        down(level)

    try:
        down(0)
    except RecursionError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Silent(), "Silent: (its text cannot be made: KeyError)"),
        (Exits(), "Exits: (its text cannot be made: SystemExit)"),
        (Odd(), "Odd: odd"),
        (ValueError("x" * 10**7), "ValueError: xxx"),
        (ValueError("x\n" * 10**6), "ValueError: x"),
        (ValueError("half a \ud800 pair, and \x00"), "ValueError: half a ? pair, and \\x00"),
        (ValueError(), "ValueError"),
        (nested(1000), "with ValueError: the real reason"),
        (chained(1000), "caused by ValueError: the real reason"),
        (chained(50_000), "RuntimeError: level 49999"),
        (circle(), "caused by TypeError: two"),
        (ExceptionGroup("many", [ValueError(str(number)) for number in range(5000)]), "with ValueError: 0\n"),
        (recursion(), "RecursionError: maximum recursion depth exceeded"),
        (SystemExit(3), "SystemExit: 3"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_something_is_said_of_whatever_was_raised(error: BaseException, says: str) -> None:
    told = describe(raised(error))

    assert says in told
    assert 0 < len(told) <= LONGEST_ERROR
    assert "\x00" not in told
    told.encode()
    assert sentence(error)
    assert "\n" not in sentence(error)
