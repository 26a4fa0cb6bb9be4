"""What runs in the process of its own that an `executor="process"` handler gets.

Only names and plain values cross: the child imports the handler's module itself. It runs one
call after another, and ends when the worker's end of their socket is closed. Whatever else is
written to that socket, by a handler or by a fork of this process, is no answer to a call.
"""

import contextlib
import importlib
import multiprocessing
import os
import pickle
import socket
import sys
import threading
from concurrent.futures import Future
from multiprocessing import spawn
from types import CoroutineType
from typing import Any

from forge_jobs.errors import InvalidInput, StorageUnavailable
from forge_jobs.handlers.child_context import PROGRESS, Ask, ChildContext
from forge_jobs.handlers.context import in_plain_handler
from forge_jobs.handlers.handler import MOST_WRAPPED, Handler
from forge_jobs.model.decision import (
    DECISIONS,
    Asleep,
    Decision,
    HandedBack,
    Reschedule,
    Retry,
    Throttled,
    decided,
)
from forge_jobs.model.error_text import describe
from forge_jobs.model.job import Claim
from forge_jobs.model.mask import Mask, present
from forge_jobs.rules.retries import AS_QUEUE, Retries
from forge_jobs.rules.returned import KeptResult, kept_result
from forge_jobs.system import exits, stop_signals
from forge_jobs.system.memory import resident
from forge_jobs.telemetry import logs
from forge_jobs.telemetry.current_job import current_job

NUMBER = 8
"""Bytes before each message that are its number: an answer has that of its call."""

LENGTH = 8
"""Bytes after them, which say how long the message is."""

NAME = "forge-process-{}"
"""What the process is called, in lists of processes and in its log lines."""

COST_NOTHING = (Reschedule, Throttled, Asleep)
"""What a handler may raise without a failed attempt."""

MAIN = ("init_main_from_name", "init_main_from_path", "sys_path", "sys_argv", "dir")
"""What a child takes over from its worker, so that it finds the handler's module."""


def call(
    module: str,
    name: str,
    claim: Claim,
    queue: str,
    arguments: dict[str, Any],
    *,
    takes_context: bool,
    style: logs.Style | None,
    ask: Ask,
    mask: Mask | None = None,
) -> KeptResult:
    """Return what the handler `name` of `module` returns for these arguments, encoded. No error shows what the
    `mask` hides. What it says of its job goes by `ask`.

    Its log lines go to stderr, are written in this style and name the job. Without a style they
    are left to the handler's module.
    """
    if style is not None:
        logs.take_over(style)
    current_job.set((claim, queue))
    present.set(mask)
    handler = _found(module, name)
    # The name is a Handler when its function was decorated; otherwise it was declared some other way.
    function, forge = getattr(handler, "function", handler), getattr(handler, "forge", None)
    context = ChildContext(claim, queue, forge, ask)  # type: ignore[arg-type]
    in_plain_handler.set(context)
    returned = function(context, **arguments) if takes_context else function(**arguments)
    if issubclass(type(returned), Future):  # not isinstance, which asks the object itself: it may raise
        returned = returned.result()
    if type(returned) is CoroutineType:
        returned.close()
        raise Retry(
            reason="The handler returned a coroutine, which nothing awaits in a process of its own; "
            "allowed is a plain function."
        )
    context.require_heeded()
    return kept_result(returned, claim.codec, claim.job_id)


class WorkersAnswers:
    """What the worker does for one call: each question is answered before the next one is asked."""

    def __init__(self, worker: socket.socket, number: bytes) -> None:
        self._worker, self._number = worker, number
        self._turn = threading.Lock()  # the handler may have threads
        self._is_over = False

    def ask(self, what: str, *values: Any) -> Any:
        """Return what the worker answers. Raises what it raises, and InvalidInput when the call is over, or this is a fork."""
        try:
            message = pickle.dumps((None, (what, values)))
        except Exception as error:  # pickle raises many
            raise InvalidInput(
                f"{what} is given what cannot be sent to the worker ({describe(error)}), allowed are plain values."
            ) from error
        with self._turn:
            if self._is_over:
                raise InvalidInput(f"{what} is asked for when the handler has ended, allowed is before that.")
            try:
                self._worker.sendall(framed(self._number, message))
                if what == PROGRESS:
                    return None
                reply = _read(self._worker)
            except OSError as error:
                raise InvalidInput(
                    f"{what} is asked for in a fork of the handler's process, allowed is in that process."
                ) from error
        if reply is None:
            raise StorageUnavailable("The worker of this process is gone.")
        is_answer, value = pickle.loads(reply[1])
        if not is_answer:
            raise value
        return value

    def over(self) -> None:
        """The call is over: nothing more may be asked."""
        with self._turn:
            self._is_over = True


def _found(module: str, name: str) -> Any:
    """Return what has this name in the module, which is imported."""
    if module == "__main__":
        module = "__mp_main__" if "__mp_main__" in sys.modules else "__main__"
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def framed(number: bytes, message: bytes) -> bytes:
    """Return a message as it goes through the socket, in both directions."""
    return number + len(message).to_bytes(LENGTH) + message


_is_told = False  # a signal to all processes of the worker: it reached those that the handler started, too


def _remember(number: int, frame: object) -> None:
    global _is_told
    _is_told = True


def main() -> None:
    """Answer the worker's calls, which come through what was standard input."""
    # The worker hears the signals and decides. Processes that the job's handler starts hear them again, which they
    # would not if they were ignored here.
    stop_signals.noticed(_remember)
    stop_signals.let_through()
    _take_name(sys.argv[1])
    worker = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.register_at_fork(after_in_child=worker.close)
    unprepared = _unprepared(_read(worker))
    while (request := _read(worker)) is not None:
        number, message = request
        answers = WorkersAnswers(worker, number)
        answer = unprepared or _answer(message, answers.ask)
        answers.over()
        # An answer is followed by how many bytes the process holds: `pickle` reads no further than it has to.
        worker.sendall(framed(number, answer + resident().to_bytes(LENGTH)))


def _take_name(name: str) -> None:
    """The process has this name, also where the system lists its processes or says which one it killed."""
    multiprocessing.current_process().name = name
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(name)


def _unprepared(facts: tuple[bytes, bytes] | None) -> bytes | None:
    """The program's main module is imported where that is needed; return the answer to every call when the import fails."""
    process = multiprocessing.current_process()
    process._inheriting = True  # type: ignore[attr-defined]  # for whatever must not be started meanwhile
    try:
        spawn.prepare(pickle.loads(facts[1] if facts else b""))
    except BaseException as error:
        return _raised(error)
    finally:
        del process._inheriting  # type: ignore[attr-defined]
    return None


def _answer(request: bytes, ask: Ask) -> bytes:
    """Return the pickled answer to a call: whether it returned, and what it returned or raised."""
    global _is_told
    here, _is_told = os.getpid(), False
    error: BaseException | None = None
    answer, args = b"", ()
    try:
        args, kwargs = pickle.loads(request)
        answer = pickle.dumps((True, call(*args, ask=ask, **kwargs)))
    except BaseException as raised:
        error = raised
        if os.getpid() == here:  # in a fork nobody hears the answer
            is_told = _is_told and not isinstance(raised, COST_NOTHING)
            answer = _raised(HandedBack() if is_told else _answered(raised, *args[:3]))
    finally:
        sys.stdout.flush()
        logs.flush()
    if os.getpid() != here:
        exits.end_fork(error)
    return answer


def _answered(
    error: BaseException, module: str = "", name: str = "", claim: Claim | None = None
) -> BaseException:
    """Return the decision that the handler's `on` and `on_failure` say for its error, which only this process has."""
    if claim is None or isinstance(error, Decision | Asleep):
        return error
    answer, text = _retries(module, name, claim.kind).answer(error, claim.attempt)
    return Retry(reason=text) if answer is None else answer


def _retries(module: str, name: str, kind: str) -> Retries:
    """Return how failed attempts of the kind are followed by others, as far as its handler can be found by its name."""
    with contextlib.suppress(BaseException):  # the module may be what raised
        found = _found(module, name)
        for _ in range(MOST_WRAPPED):
            if isinstance(found, Handler) and found.kind == kind:
                return found.retries
            found = getattr(found, "__wrapped__", None)
    return AS_QUEUE


def _raised(error: BaseException) -> bytes:
    """Return the answer that raises in the worker the decision `error`, or fails the attempt with its text.
    A program's own exceptions are not sent: in the worker they could not be made again, or only without
    their cause.
    """
    if isinstance(error, Asleep):
        return pickle.dumps((False, error))
    for kind in DECISIONS:
        if isinstance(error, kind):
            facts = {
                name: value for name, value in vars(error).items() if name in ("after", "at", "retry_after")
            }
            text = getattr(error, "reason", None)
            decision = decided(kind, (), facts | {"reason": text if type(text) is str else describe(error)})
            with contextlib.suppress(Exception):
                return pickle.dumps((False, decision))
    return pickle.dumps((False, Retry(reason=describe(error))))


def _read(worker: socket.socket) -> tuple[bytes, bytes] | None:
    """Return the number of the next message, and itself; None when the worker is gone."""
    head = _exactly(worker, NUMBER + LENGTH)
    message = None if head is None else _exactly(worker, int.from_bytes(head[NUMBER:]))
    return None if head is None or message is None else (head[:NUMBER], message)


def _exactly(worker: socket.socket, count: int) -> bytes | None:
    read = bytearray()
    while len(read) < count:
        try:
            more = worker.recv(min(count - len(read), 1 << 20))
        except ConnectionError:
            return None
        if not more:
            return None
        read += more
    return bytes(read)


if __name__ == "__main__":
    main()
