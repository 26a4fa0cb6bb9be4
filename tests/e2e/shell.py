"""Commands of the machine: run, and told of in one piece when they fail."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout. Every command runs there, as README's reader does it."""


class CommandFailed(AssertionError):
    """A command ended with another code than 0; says which one, and what it printed."""

    def __init__(self, command: str, code: int, output: str) -> None:
        super().__init__(f"{command}\nended with {code} and said:\n{output.strip()[-4000:]}")
        self.output = output


def run(
    command: Sequence[str] | str,
    *,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> str:
    """Return what a command printed; text is given to the shell. Raises CommandFailed, and TimeoutExpired."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        shell=isinstance(command, str),
        input=stdin if stdin is not None else "",
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        named = command if isinstance(command, str) else " ".join(command)
        raise CommandFailed(named, done.returncode, done.stdout + done.stderr)
    return done.stdout


def missing(programs: Sequence[str]) -> list[str]:
    """Return which of the programs are not there."""
    return [each for each in programs if shutil.which(each) is None]
