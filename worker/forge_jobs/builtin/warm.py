"""Warm programs: a kind of jobs is done by processes in any language, which stay for the next job.

A process reads one job a line, as JSON, and writes one answer a line. One that does not keep to that, or dies, is killed with
all that it has started, and the next job starts another one. So is one that wrote anything after its answer.
"""

import asyncio
import os
import select
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import msgspec

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.context import Context
from forge_jobs.model.decision import Dead, HandedBack, Retry, Throttled
from forge_jobs.model.moments import as_duration
from forge_jobs.system.process_group import ProcessGroup

if TYPE_CHECKING:
    from forge_jobs.forge import Forge

TIMEOUT = 600.0  # seconds
LONGEST_LINE = 16 * 1024 * 1024  # bytes of an answer
MOST_PROCESSES = 256
EXCERPT = 200  # characters of what is no answer


class WarmAnswer(msgspec.Struct, frozen=True):
    """A line that a process writes."""

    id: int
    status: str  # ok, error, throttled or dead
    message: str | None = None
    retry_after_secs: float | None = None
    result: Any = None


class WarmOutput(asyncio.StreamReader):
    """What a process writes; `unread` is how many bytes of it nobody has taken for an answer."""

    def __init__(self) -> None:
        super().__init__(limit=LONGEST_LINE)
        self.unread = 0

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """The process has written this."""
        data = bytes(data)
        self.unread += len(data)
        super().feed_data(data)

    async def readline(self) -> bytes:
        """Return the next line, or what there is of it at the end. Raises ValueError for one that is too long."""
        line = await super().readline()
        self.unread -= len(line)
        return line


class WarmProcess:
    """One process, and its lines."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path | None) -> None:
        stdin, self._stdin = os.pipe()
        try:
            self._stdout, stdout = os.pipe()
        except BaseException:
            os.close(stdin)
            os.close(self._stdin)
            raise
        try:
            self.group = ProcessGroup(argv, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=2)
        except BaseException:
            os.close(self._stdin)
            os.close(self._stdout)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        self._reader: WarmOutput | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Its lines can be read and written."""
        loop = asyncio.get_running_loop()
        self._reader = WarmOutput()
        protocol = asyncio.StreamReaderProtocol(self._reader)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(self._stdout, "rb", 0))
        flow = asyncio.streams.FlowControlMixin()
        writing, _ = await loop.connect_write_pipe(lambda: flow, os.fdopen(self._stdin, "wb", 0))
        self._writer = asyncio.StreamWriter(writing, flow, None, loop)
        self._transports = [transport, writing]

    async def answer(self, request: bytes) -> bytes | None:
        """Return the line that answers the request; None: it has ended instead. Raises Retry for a line that is too long."""
        assert self._writer is not None and self._reader is not None
        try:
            self._writer.write(request + b"\n")
            await self._writer.drain()
            line = await self._reader.readline()
        except (ConnectionError, OSError):
            return None
        except ValueError:
            raise Retry(reason=f"its process wrote a line of more than {LONGEST_LINE:,} bytes") from None
        return line if line.endswith(b"\n") else None

    @property
    def waits(self) -> bool:
        """Whether it lives, and has written nothing since its last answer: a second one might be taken for that of the next job."""
        if not self.group.lives or self._reader is None or self._reader.unread:
            return False
        if any(transport.is_closing() for transport in self._transports):
            return False
        looking = select.poll()
        looking.register(self._stdout, select.POLLIN)
        return not looking.poll(0)

    async def end(self) -> None:
        """Nothing of it runs."""
        for transport in self._transports:
            if not transport.is_closing():  # as it is when the process has closed its end
                transport.close()
        await self.group.kill()


class WarmProgram:
    """Runs jobs in up to `processes` processes of one program, each one job at a time."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        processes: int = 1,
        timeout: float | None = TIMEOUT,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        if isinstance(argv, str) or not argv or not all(isinstance(part, str) for part in argv):
            raise InvalidInput(
                f"argv is {argv!r}, allowed is a list of texts: the program and its arguments."
            )
        if (
            isinstance(processes, bool)
            or not isinstance(processes, int)
            or not 1 <= processes <= MOST_PROCESSES
        ):
            raise InvalidInput(
                f"processes is {processes!r}, allowed is a whole number from 1 to {MOST_PROCESSES}."
            )
        limit = as_duration(timeout, "timeout")
        self._argv = list(argv)
        self._timeout = None if limit is None else limit.total_seconds()
        self._env, self._cwd = dict(env or {}), None if cwd is None else Path(cwd)
        self._processes = processes
        self._slots = asyncio.Semaphore(processes)
        self._idle: deque[WarmProcess] = deque()

    async def run(self, ctx: Context, payload: Mapping[str, Any]) -> Any:
        """Return what a process answers; raises what its status says, and Retry when it does not answer in its way."""
        asked = {
            **{"id": ctx.job_id, "attempt": ctx.attempt, "kind": ctx.kind, "queue": ctx.queue},
            "payload": payload,
        }
        async with self._slots:
            process = await self._one()
            try:
                async with asyncio.timeout(self._timeout):
                    line = await process.answer(msgspec.json.encode(asked))
                if line is None:
                    raise await self._died(process)
                answer = _read(line, ctx.job_id)
            except TimeoutError:
                await process.end()
                raise Retry(reason=f"timeout after {self._timeout:g} s") from None
            except BaseException:
                await process.end()
                raise
            self._idle.append(process)
        return _outcome(answer)

    async def close(self) -> None:
        """No process runs."""
        while self._idle:
            await self._idle.pop().end()
        self._slots = asyncio.Semaphore(self._processes)  # the next loop's: this one belongs to its own

    async def _one(self) -> WarmProcess:
        while self._idle:
            process = self._idle.pop()
            if process.waits:
                return process
            await process.end()
        env = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
        try:
            process = WarmProcess(self._argv, {**env, **self._env}, self._cwd)
        except OSError as error:
            raise Retry(reason=f"spawn {self._argv[0]!r}: {error.strerror or error}") from None
        except ValueError as error:  # a zero byte, or a variable with = in its name
            raise Dead(f"spawn {self._argv[0]!r}: {error}") from None
        try:
            await process.open()
        except BaseException:
            await process.end()
            raise
        return process

    async def _died(self, process: WarmProcess) -> BaseException:
        """Return what to raise for a process that has ended, or closed its output, before it answered."""
        code: int | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                code = await process.group.exited()
        if code is not None and await process.group.was_told(code):
            return HandedBack()
        how = "" if code is None else f" with {code}"
        return Retry(reason=f"its process ended{how} before it answered")


def _read(line: bytes, job_id: int) -> WarmAnswer:
    """Return the answer that a line is. Raises Retry when it is none, or that of another job."""
    try:
        answer = msgspec.json.decode(line, type=WarmAnswer)
    except msgspec.MsgspecError:
        text = line[:EXCERPT].decode(errors="replace").rstrip()
        raise Retry(reason=f"its process wrote what is no answer: {text}") from None
    if answer.id != job_id:
        raise Retry(reason=f"its process answered for job {answer.id}")
    if answer.status not in ("ok", "error", "throttled", "dead"):
        raise Retry(
            reason=f"its process answered with the status {answer.status!r}, allowed is ok, error, throttled or dead"
        )
    return answer


def _outcome(answer: WarmAnswer) -> Any:
    """Return the result of an answer, or raise what it says."""
    after = answer.retry_after_secs
    try:
        wait = as_duration(after, "retry_after_secs")
    except InvalidInput as error:
        raise Retry(reason=f"its process answered wrongly: {error}") from None
    match answer.status:
        case "ok":
            return answer.result
        case "throttled":
            raise Throttled(wait, answer.message or "throttled")
        case "dead":
            raise Dead(answer.message or "given up by its process")
        case _:
            raise Retry(wait, answer.message or "its process said no more than that it failed")


def register_program(
    forge: "Forge",
    kind: str,
    argv: Sequence[str],
    *,
    processes: int = 1,
    timeout: float | None = TIMEOUT,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    **options: Any,
) -> WarmProgram:
    """`forge` does jobs of `kind` by processes of the program `argv`, up to so many at once, which stay for the next job.

    `timeout`, in seconds, is how long a process may take for an answer; None is no end. `options` are those of a
    handler. Return the program. Raises InvalidInput.
    """
    program = WarmProgram(argv, processes=processes, timeout=timeout, env=env, cwd=cwd)

    async def run(ctx: Context, **payload: Any) -> Any:
        return await program.run(ctx, payload)

    forge.handler(kind=kind, **options)(run)
    forge.at_close(program.close)
    return program
