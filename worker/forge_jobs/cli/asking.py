"""Asking before something is done that cannot be undone: a person at a terminal is asked, a script passes --yes."""

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated

import click

from forge_jobs.cli.command import Call
from forge_jobs.cli.options import Option
from forge_jobs.cli.output import Report
from forge_jobs.client.job_filter import JobFilter
from forge_jobs.client.jobs import Jobs
from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.model.job import State
from forge_jobs.rules.words import count as shown_count

Yes = Annotated[bool, Option("--yes", help="Do not ask for confirmation; needed where there is no terminal.")]
DryRun = Annotated[bool, Option("--dry-run", help="Print how many jobs would change, and change nothing.")]

DECLINED = "Nothing was changed."


def can_ask(call: Call) -> bool:
    """Whether a person sits at a terminal; who wants JSON is a program."""
    return not call.as_json and sys.stdin.isatty() and sys.stderr.isatty()


def agreed(question: str) -> bool:
    """Ask on stderr, and return whether the answer is yes. Ctrl-C ends the command."""
    # The event loop would note the first Ctrl-C and wait for the answer.
    heard_by = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.stderr.write(f"{question} [y/N] ")  # input() would write it to stdout
        sys.stderr.flush()
        answer = sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, heard_by)
    if not answer:  # the terminal is closed
        raise click.Abort
    return answer.strip().lower() in ("y", "yes")


def require_yes(question: str) -> None:
    """The answer to the question is yes. Raises ForgeError when it is not."""
    if not agreed(question):
        raise ForgeError(DECLINED)


def require_a_word(call: Call, what: str, *, yes: bool, dry_run: bool) -> None:
    """What was asked for is said with --yes or --dry-run, or can be asked. Raises InvalidInput."""
    if yes and dry_run:
        raise InvalidInput("--yes and --dry-run are both given, allowed is one of them.")
    if not yes and not dry_run and not can_ask(call):
        raise InvalidInput(
            f"{what} cannot be undone, and nobody can be asked here; pass --yes, or preview with --dry-run."
        )


async def counted(jobs: Jobs, states: Sequence[State], which: JobFilter) -> dict[State, int]:
    """Return how many jobs of each of the states match."""
    return {state: await jobs.count(state=state, **asdict(which)) for state in states}


def described(counts: Mapping[State, int], which: JobFilter) -> str:
    """Return '12,345 pending jobs of queue mail', '3 jobs (1 dead, 2 pending)', 'no jobs'."""
    present = {state: number for state, number in counts.items() if number}
    total = sum(present.values())
    if len(present) == 1:
        [state] = present
        words = shown_count(total, f"{state.value} job")
    elif present:
        parts = ", ".join(f"{number:,} {state.value}" for state, number in present.items())
        words = f"{shown_count(total, 'job')} ({parts})"
    else:
        words = "no jobs"
    of = {"of kind": which.kind, "of queue": which.queue, "with key": which.key, "in group": which.group}
    of["with tag" if len(which.tags) == 1 else "with tags"] = ", ".join(which.tags) or None
    return words + "".join(f" {name} {said}" for name, said in of.items() if said is not None)


def would_be(counts: Mapping[State, int], what: str, done: str) -> Report:
    """Return what --dry-run has to say: how many jobs of which states would be `done`."""
    states = {state.value: number for state, number in counts.items() if number}
    sentence = f"{what[0].upper()}{what[1:]} would be {done}. {DECLINED}"
    return Report({"dry_run": True, "jobs": sum(counts.values()), "states": states}, [sentence])
