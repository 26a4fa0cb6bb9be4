"""`manage.py forge` is `forge-jobs`, with the database and the tasks of a backend."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from forge_jobs.integrations.django import program
from forge_jobs.integrations.django.connection_care import begin_to_work

OF_DJANGO = ("--settings", "--pythonpath")  # which manage.py has read itself
OURS = "--backend"


class Command(BaseCommand):  # type: ignore[misc]  # which has no types here
    """Runs any command of forge-jobs."""

    help = "Run a command of forge-jobs with the database and the tasks of a backend: manage.py forge jobs list --state dead."
    requires_system_checks = ()

    def add_arguments(self, parser: Any) -> None:
        """The arguments of the command are known."""
        parser.add_argument("words", nargs="*", help="the command; --backend NAME: of another one in TASKS")

    def run_from_argv(self, argv: Sequence[str]) -> None:
        """The command has run, and the process ends as it says. All that follows `forge` is for it, also --help."""
        sys.exit(run(list(argv[2:])))

    def handle(self, *words: str, **options: Any) -> None:
        """The command has run, as for `call_command`. Raises CommandError when it has failed."""
        if code := run([*words, *options["words"]]):
            raise CommandError(f"forge {' '.join(options['words'])} has failed.", returncode=code)


def run(words: list[str]) -> int:
    """Run the command that the words say, and return its exit code."""
    from forge_jobs.cli import main

    backend = taken(words, OURS)
    for option in OF_DJANGO:
        taken(words, option)
    said = {"FORGE_APP": program.APP} | ({program.BACKEND: backend} if backend else {})
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    begin_to_work()
    try:
        return main(words)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def taken(words: list[str], option: str) -> str | None:
    """Return the value of the option, which is taken out of the words; None when they do not have it."""
    for place, word in enumerate(words):
        if word == option and place + 1 < len(words):
            value = words[place + 1]
            del words[place : place + 2]
            return value
        if word.startswith(f"{option}="):
            del words[place]
            return word.partition("=")[2]
    return None
