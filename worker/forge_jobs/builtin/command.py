"""The kind `command`: runs a program, and nothing of it is left when the job has ended."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Annotated, TypedDict

import msgspec

from forge_jobs.builtin.output import Output
from forge_jobs.handlers.context import Context
from forge_jobs.model.decision import Dead, HandedBack, Retry
from forge_jobs.system.process_group import ProcessGroup

TIMEOUT = 600.0  # seconds
LONGEST_TIMEOUT = 30 * 86_400.0  # seconds
EXCERPT = 256  # bytes of output in the sentence that says how it failed
UNKNOWN_EXIT = (
    "exit code unknown: the worker's process ignores SIGCHLD, or something else in it took the code"
)
LAST_LINES = 1.0  # seconds to read what dead processes wrote

Argv = Annotated[list[str], msgspec.Meta(min_length=1)]
Timeout = Annotated[float, msgspec.Meta(gt=0, le=LONGEST_TIMEOUT)]


class CommandResult(TypedDict):
    """What is kept of a command that succeeded: the end of its outputs."""

    exit_code: int
    stdout: str
    stderr: str


async def command(
    ctx: Context,
    argv: Argv,
    env: dict[str, str] | None = None,
    cwd: str | None = None,
    stdin: str | None = None,
    timeout: Timeout | None = TIMEOUT,
) -> CommandResult:
    """Run `argv`, without a shell, and return when it exited with 0; anything else is a failure.

    `timeout` is in seconds, None is no end. When the job is cancelled or timed out, or the
    worker stops, the process and all that it started are killed.
    """
    folder = _folder(cwd, ctx.forge.settings.command_root)
    with Output("stdout") as stdout, Output("stderr") as stderr:
        group = _start(argv, folder, _environment(ctx, env or {}), stdin, stdout, stderr)
        following = [asyncio.create_task(output.follow()) for output in (stdout, stderr)]
        code, in_time = None, False
        try:
            async with asyncio.timeout(timeout):
                code = await group.exited()
                in_time = True
        except TimeoutError:
            pass  # said below, with what it wrote before it was killed
        finally:
            await _ended(group, following)
        output = _excerpt(stderr) or _excerpt(stdout)
        if not in_time:
            raise Retry(reason=f"timeout after {timeout:g} s{output}")
        if code != 0 and await group.was_told(code):
            raise HandedBack
        if code is None:
            raise Retry(reason=f"{UNKNOWN_EXIT}{output}")
        if code < 0:
            raise Retry(reason=f"killed by signal {-code} ({_name(-code)}){output}")
        if code > 0:
            raise Retry(reason=f"exit {code}{output}")
        return CommandResult(exit_code=code, stdout=stdout.tail(), stderr=stderr.tail())


async def _ended(group: ProcessGroup, following: "list[asyncio.Task[None]]") -> None:
    """Nothing runs any more, and what was written was read, unless a process escaped with the pipes."""
    try:
        await group.end()
        await asyncio.wait(following, timeout=LAST_LINES)
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


def _start(
    argv: list[str], folder: Path, env: Mapping[str, str], stdin: str | None, stdout: Output, stderr: Output
) -> ProcessGroup:
    try:
        with _input(stdin) as source:
            group = ProcessGroup(
                argv, env=env, cwd=folder, stdin=source, stdout=stdout.descriptor, stderr=stderr.descriptor
            )
    except OSError as error:
        raise Retry(reason=f"spawn {argv[0]!r}: {error.strerror or error}") from None
    except ValueError as error:  # a zero byte, or a variable with = in its name
        raise Dead(f"spawn {argv[0]!r}: {error}") from None
    stdout.close()
    stderr.close()
    return group


def _input(stdin: str | None) -> IO[bytes]:
    """Return a file, not a pipe: nobody has to feed it, and a command that does not read it harms nobody."""
    if stdin is None:
        return open(os.devnull, "rb")
    source = tempfile.TemporaryFile()
    source.write(stdin.encode())
    source.seek(0)
    return source


def _folder(cwd: str | None, root: Path | None) -> Path:
    """Return where to run, after all links. It exists, and is inside of `root`."""
    try:
        folder = (root or Path.cwd()).joinpath(cwd or "").resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise Retry(reason=f"cwd rejected: {cwd!r}: {getattr(error, 'strerror', None) or error}") from None
    if not folder.is_dir():
        raise Retry(reason=f"cwd rejected: {cwd!r} is not a folder")
    if root is not None and not folder.is_relative_to(root):
        raise Retry(
            reason=f"cwd rejected: {cwd!r} is not inside of {root}, where FORGE_COMMAND_ROOT keeps commands"
        )
    return folder


def _environment(ctx: Context, env: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's environment without its own settings (a password is among them), and the job's."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
    job = {
        "FORGE_JOB_ID": str(ctx.job_id),
        "FORGE_JOB_ATTEMPT": str(ctx.attempt),
        "FORGE_JOB_QUEUE": ctx.queue,
    }
    return {**own, **job, **env}


def _excerpt(output: Output) -> str:
    text = output.tail(EXCERPT).strip()
    return f": {text}" if text else ""


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "of no name"
