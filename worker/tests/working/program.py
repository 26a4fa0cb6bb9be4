"""A user's program, run by real worker processes in the tests; its handlers keep a ledger.

Each line of the ledger is one event: what, job id, attempt, process id, monotonic moment.
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time

from forge_jobs import Context, Forge, builtin

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


@forge.handler
async def sleep_once(ctx: Context, seconds: float) -> None:
    """Sleep in the first attempt only."""
    note("start", ctx)
    if ctx.attempt == 1:
        await asyncio.sleep(seconds)
    note("end", ctx)


@forge.handler(max_attempts=3)
async def die(ctx: Context) -> None:
    """Kill the process that runs this."""
    note("start", ctx)
    os.kill(os.getpid(), signal.SIGKILL)


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


@forge.handler
async def spend(ctx: Context, scope: str) -> None:
    await ctx.rate_limit.acquire(scope, wait=0)
    note("spent", ctx)
