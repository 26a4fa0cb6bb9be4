"""A user's program, run by real worker processes in the tests; its handlers keep a ledger.

Each line of the ledger is one event: what, job id, attempt, process id, monotonic moment.
"""

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextvars import Context as Variables
from typing import Any

from forge_jobs import Context, Forge, builtin
from forge_jobs.telemetry.events import Event, ExitContained

forge = Forge()
builtin.register(forge)


def note(what: str, ctx: Context) -> None:
    line = f"{what} {ctx.job_id} {ctx.attempt} {os.getpid()} {time.monotonic()}\n"
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())  # one write: lines of several processes never mix
    finally:
        os.close(descriptor)


@forge.handler(max_attempts=20)
async def nap(ctx: Context, seconds: float = 0.0) -> None:
    note("start", ctx)
    await asyncio.sleep(seconds)
    note("end", ctx)


@forge.handler(group="serial")
async def alone(ctx: Context, seconds: float) -> None:
    """Never run beside another one."""
    note("start", ctx)
    await asyncio.sleep(seconds)
    note("end", ctx)


@forge.handler
async def take(text: str) -> None:
    """Be given something large."""


@forge.handler
async def make(length: int) -> str:
    """Return something large."""
    return "x" * length


@forge.handler
async def sleep_once(ctx: Context, seconds: float) -> None:
    """Sleep in the first attempt only."""
    note("start", ctx)
    if ctx.attempt == 1:
        await asyncio.sleep(seconds)
    note("end", ctx)


@forge.handler
async def count_up(ctx: Context, to: int) -> None:
    """Save each step, and stop half-way in the first attempt only."""
    for number in range(ctx.state or 0, to):
        note("row", ctx)
        await ctx.save(number + 1)
        await ctx.progress((number + 1) / to)
        if ctx.attempt == 1 and number + 1 == to // 2:
            note("half", ctx)
            await asyncio.sleep(300)


@forge.handler(max_attempts=3)
async def die(ctx: Context) -> None:
    """Kill the process that runs this."""
    note("start", ctx)
    os.kill(os.getpid(), signal.SIGKILL)


@forge.handler(max_attempts=5)
async def wait_for(ctx: Context, path: str) -> None:
    """Go on until there is such a file."""
    note("start", ctx)
    try:
        while not os.path.exists(path):
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        note("stopped", ctx)
        raise
    note("end", ctx)


@forge.handler
async def stubborn(ctx: Context, seconds: float) -> None:
    """Ignore being told to stop."""
    note("start", ctx)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            note("told", ctx)
    note("end", ctx)


@forge.handler
async def take_signals(how: str) -> None:
    """Hear SIGTERM oneself, as some libraries do."""
    if how == "loop":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@forge.handler(max_attempts=2)
async def cancel_all(ctx: Context, itself: bool) -> None:
    """Cancel every task of the event loop."""
    note("start", ctx)
    for task in asyncio.all_tasks():
        if itself or task is not asyncio.current_task():
            task.cancel()
    await asyncio.sleep(0.1)
    note("end", ctx)


@forge.handler
async def block(ctx: Context, seconds: float) -> None:
    """Keep the event loop from everybody else."""
    note("start", ctx)
    time.sleep(seconds)
    note("end", ctx)


@forge.handler
def stubborn_thread(ctx: Context, seconds: float) -> None:
    """Never look whether it should stop."""
    note("start", ctx)
    time.sleep(seconds)
    note("end", ctx)


@forge.handler(executor="process")
def talk() -> None:
    """Say something, in a process of its own, and more than a pipe holds."""
    print("printed")
    subprocess.run([sys.executable, "-c", "print('x' * 1_000_000)"], check=True, stdout=2)
    logging.getLogger("talk").info("hello")
    logging.getLogger("talk").debug("too much")


@forge.handler(executor="process", max_attempts=20)
def compute(ctx: Context, seconds: float) -> None:
    """Keep a process busy that has a child of its own."""
    with subprocess.Popen(["sleep", "1000"]) as child:
        note(f"child-{child.pid}", ctx)
        note("start", ctx)
        time.sleep(seconds)
        note("end", ctx)
        child.kill()


@forge.handler(executor="process")
def run_program(ctx: Context, argv: list[str]) -> None:
    note("start", ctx)
    subprocess.run(argv, check=True)


TOLD = """
import json, os, stat
pipes = [number for number in range(3, 200) if os.path.exists(f"/proc/self/fd/{number}") and stat.S_ISFIFO(os.stat(number).st_mode)]
print(json.dumps({"pipes": pipes, "variables": sorted(name for name in os.environ if name.startswith("_FORGE"))}))
"""


@forge.handler
async def told_to_a_program() -> Any:
    """Return what a program that a handler starts gets of what the worker's parent gave the worker."""
    argv = [sys.executable, "-c", TOLD]
    return json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE, close_fds=False).stdout)


kept: list[Any] = []


@forge.handler
async def leave_behind(what: str) -> None:
    """Be done, but leave something that goes on and that a program waits for before it ends."""

    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)

    match what:
        case "thread":
            threading.Thread(target=time.sleep, args=(1000,), name="left").start()
        case "executor":
            kept.append(asyncio.get_running_loop().run_in_executor(None, time.sleep, 1000))
        case "task":
            kept.append(asyncio.create_task(stubborn(), name="left"))
        case "process":
            context = multiprocessing.get_context("spawn")
            kept.append(context.Process(target=time.sleep, args=(1000,), name="left"))
            kept[-1].start()


@forge.handler
async def ignore_children() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


@forge.handler
async def wait_for_all_children() -> None:
    """Leave somebody who takes every exit code for itself."""

    def wait() -> None:
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.001)

    threading.Thread(target=wait, daemon=True).start()


@forge.handler
async def spend(ctx: Context, scope: str) -> None:
    await ctx.rate_limit.acquire(scope, wait=0)
    note("spent", ctx)


released = asyncio.Event()


@forge.handler
async def stay(ctx: Context) -> None:
    note("start", ctx)
    await released.wait()


@forge.handler
async def release() -> None:
    released.set()


class Leaving(asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        sys.exit("protocol")


@forge.handler
async def leave(ways: list[str]) -> None:
    """Have an exit come out of the event loop, which nothing tells of what job it is; one way after another."""
    loop, nobodys = asyncio.get_running_loop(), Variables()
    contained = asyncio.Event()

    def hear(event: Event) -> None:
        if isinstance(event, ExitContained):
            contained.set()

    def leave(*given: Any) -> None:
        sys.exit(way)

    def raise_timeout(*given: Any) -> None:
        raise TimeoutError("too slow")

    forget = forge.telemetry.subscribe(hear)
    for way in ways:
        match way:
            case "callback":
                nobodys.run(loop.call_soon, leave)
            case "signal":
                loop.add_signal_handler(signal.SIGUSR1, leave)
                os.kill(os.getpid(), signal.SIGUSR1)
            case "alarm":
                signal.signal(signal.SIGALRM, leave)
                nobodys.run(loop.call_soon, signal.setitimer, signal.ITIMER_REAL, 0.2)
            case "protocol":
                ours, theirs = socket.socketpair()
                await loop.create_connection(Leaving, sock=ours)
                theirs.send(b"x")
            case "stop":
                nobodys.run(loop.call_soon, loop.stop)
            case "exception handler":
                loop.set_exception_handler(leave)
                nobodys.run(loop.call_soon, raise_timeout)
        await contained.wait()
        contained.clear()
    loop.set_exception_handler(None)
    forget()


@forge.handler
async def interrupt(calls: list[str]) -> None:
    """Have a signal's handler, which exits, interrupt each of these calls of the worker's own parts."""
    contained = asyncio.Event()

    def hear(event: Event) -> None:
        if isinstance(event, ExitContained):
            contained.set()

    def leave(*given: Any) -> None:
        sys.exit(call)

    def interrupted(part: Any, name: str) -> None:
        before = getattr(part, name)

        async def once(*given: Any, **options: Any) -> Any:
            setattr(part, name, before)
            signal.raise_signal(signal.SIGALRM)
            return await before(*given, **options)

        setattr(part, name, once)

    signal.signal(signal.SIGALRM, leave)
    forget = forge.telemetry.subscribe(hear)
    for call in calls:
        part, _, name = call.partition(".")
        interrupted(getattr(forge.storage, part), name)
        await forge.enqueue("nap", delay=0.01)  # which becomes pending, is claimed, and ends
        await contained.wait()
        contained.clear()
    forget()


@forge.handler
async def limit_by_alarm() -> str:
    """Limit a call by a signal, as a library does that has no better way."""

    def raise_timeout(*given: Any) -> None:
        raise TimeoutError("too slow")

    signal.signal(signal.SIGALRM, raise_timeout)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        time.sleep(60)
    except TimeoutError as error:
        return str(error)
    return "not limited"


@forge.handler
async def wake_amid_a_signal() -> None:
    """Wait for a callback that is interrupted by a signal, whose handler exits."""
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake() -> None:
        signal.raise_signal(signal.SIGALRM)
        woken.set_result(None)

    signal.signal(signal.SIGALRM, lambda *given: sys.exit("alarm"))
    loop.call_soon(wake)
    await woken


@forge.handler
async def leave_again_and_again() -> None:
    loop = asyncio.get_running_loop()

    def leave() -> None:
        loop.call_later(0.001, leave)
        sys.exit(3)

    leave()


@forge.handler
async def break_loop() -> None:
    """Take from the event loop what it waits with."""
    os.close(asyncio.get_running_loop()._selector.fileno())  # type: ignore[attr-defined]


@forge.handler
async def hear_sigterm() -> None:
    """Hear SIGTERM in the worker's place, as a library does that thinks that the process is its own."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sys.exit, 0)


def fork_and_return() -> int:
    """Return the exit code of a fork that returns from here, as its parent does."""
    if (child := os.fork()) == 0:
        return -1
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forge.handler
def fork_in_thread(ctx: Context) -> int:
    note("start", ctx)
    return fork_and_return()


@forge.handler
async def fork_in_loop(ctx: Context) -> int:
    note("start", ctx)
    return fork_and_return()


@forge.handler
async def fork_in_task(ctx: Context) -> int:
    note("start", ctx)

    async def task() -> int:
        code = fork_and_return()
        await asyncio.sleep(0)
        return code

    return await asyncio.create_task(task())


@forge.handler
async def terminate_fork() -> int | None:
    """Return how a process ends that multiprocessing forked and that is terminated."""
    child = multiprocessing.get_context("fork").Process(target=signal.pause)
    child.start()
    child.terminate()
    child.join(30)
    return child.exitcode


@forge.handler(executor="process")
def terminate_fork_in_process() -> int | None:
    child = multiprocessing.get_context("fork").Process(target=signal.pause)
    child.start()
    child.terminate()
    child.join(30)
    return child.exitcode


@forge.handler
async def fork(ctx: Context, where: str) -> int:
    """Return the exit code of a fork that leaves as a child does: by `sys.exit`."""
    note("start", ctx)
    answered = asyncio.get_running_loop().create_future()

    def fork_and_leave() -> None:
        if (child := os.fork()) == 0:
            sys.exit(7)
        answered.set_result(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    async def task() -> None:
        fork_and_leave()

    match where:
        case "handler":
            fork_and_leave()
        case "task":
            await asyncio.create_task(task())
        case "callback":
            asyncio.get_running_loop().call_soon(fork_and_leave)
    return await answered
