"""The options of commands that pause something."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.options import Option
from forge_jobs.cli.output import Report
from forge_jobs.errors import InvalidInput
from forge_jobs.rules.duration import in_words
from forge_jobs.rules.words import to_the_second

For = Annotated[
    timedelta | None,
    Option("--for", metavar="DURATION", help="Resume after this time.", parser=values.duration("--for")),
]
Until = Annotated[
    str | None,
    Option(metavar="TIME", help="Resume at this moment: ISO 8601, UTC when it names no zone."),
]
Why = Annotated[str | None, Option(metavar="TEXT", help="The reason, shown to whoever asks why a job waits.")]


def pause_end(duration: timedelta | None, until: str | None) -> datetime | timedelta | None:
    """Return when the pause is to end, as given by --for or --until. Raises InvalidInput."""
    if duration is not None and until is not None:
        raise InvalidInput("--for and --until are both given, allowed is one of them.")
    return duration if until is None else values.parse_moment(until, "--until")


def until_when(end: datetime | None) -> str:
    """Return ' until 2026-01-31 08:00:00 UTC', and nothing where there is no end."""
    return "" if end is None else f" until {to_the_second(end)}"


def resumed(noun: str, was_paused: Mapping[str, bool]) -> Report:
    """Return what is said of things of this kind, each with whether it was paused before."""
    return Report(
        [{noun: name, "resumed": was} for name, was in was_paused.items()],
        [
            f"{noun.capitalize()} {name!r} {'is resumed' if was else 'was not paused'}."
            for name, was in was_paused.items()
        ],
    )


def state_of(is_paused: bool, end: datetime | None, now: datetime) -> str:
    """Return 'active', 'paused', or 'paused for 5 min'."""
    if not is_paused:
        return "active"
    left = timedelta(0) if end is None else end - now
    return f"paused for {in_words(left)}" if left > timedelta(0) else "paused"
