"""Handlers that tests run in processes of their own. Each of these imports this file, so it imports little."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from forge_jobs import ClaimLost, Context, Dead, Forge, InvalidInput, Reschedule, Retry, Step, Throttled
from forge_jobs.model.decision import Asleep

DAY = timedelta(days=1)
MEBIBYTE = 1024 * 1024
hoard: list[bytes] = []


def note(path: str, what: str) -> str:
    with open(path, "a", encoding="utf-8") as ledger:
        ledger.write(f"{what}\n")
    return what


def noted(path: str) -> list[str]:
    with open(path, encoding="utf-8") as ledger:
        return ledger.read().split()


def ship(ctx: Context, ledger: str) -> list[object]:
    charged = ctx.step("charge", note, ledger, "charged")
    if ctx.attempt == 1:
        raise ConnectionError
    packed = ctx.step(Step("pack", attempts=2, wait=0.01), flaky, ledger)
    ctx.sleep(DAY)
    return [charged, packed, ctx.patched("taxes"), os.getpid() != os.getppid()]


def flaky(ledger: str) -> str:
    note(ledger, "tried")
    if noted(ledger).count("tried") == 1:
        raise TimeoutError
    return "packed"


def copy(ctx: Context) -> object:
    pages = ctx.state or []
    pages.append(ctx.attempt)
    ctx.save(pages)
    ctx.progress(0.5, f"attempt {ctx.attempt}")
    ctx.set_result({"pages": len(pages)})
    before = ctx.state_of_key()
    ctx.save_for_key([before, ctx.attempt])
    if ctx.attempt == 1:
        raise ConnectionError
    return [ctx.state, before]


def agree(ctx: Context) -> object:
    answer = ctx.wait_for("approved", timeout=DAY)
    try:
        ctx.wait_for("paid", timeout=0)
    except TimeoutError as error:
        return [answer, str(error).partition(":")[0]]
    return None


def misuse(ctx: Context) -> list[str]:
    said: list[str] = []
    calls: list[Callable[[], Any]] = [
        lambda: ctx.save(object()),
        lambda: ctx.save("x" * 300_000),
        lambda: ctx.save(1, connection=object()),
        lambda: ctx.step(Step("book", connection=object()), dict),
        lambda: ctx.step("outer", lambda: ctx.step("inner", dict)),
        lambda: ctx.step("", dict),
        lambda: ctx.save_for_key(1),
        lambda: ctx.progress(2),
        lambda: ctx.enqueue("other", connection=object()),
        lambda: ctx.rate_limit.acquire("smtp"),
    ]
    for call in calls:
        try:
            call()
        except InvalidInput as error:
            said.append(str(error))
    return said


def side_by_side(ctx: Context) -> int:
    threads = [threading.Thread(target=ctx.progress, args=(share / 200,)) for share in range(100)]
    for thread in threads:
        thread.start()
    results = [ctx.step(f"step {number}", int, str(number)) for number in range(20)]
    for thread in threads:
        thread.join()
    return sum(results)


def swallow(ctx: Context, ledger: str) -> str:
    note(ledger, "called")
    try:
        ctx.sleep(DAY)
    except Asleep:
        return "done at once"
    return "slept"


def in_another_order(ctx: Context, ledger: str) -> None:
    names = ["first", "second"] if ctx.attempt == 1 else ["second", "first"]
    for name in names:
        ctx.step(name, note, ledger, name)
    raise ConnectionError


def die(ctx: Context, ledger: str) -> object:
    def killed_once() -> str:
        if noted(ledger).count("begun") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"

    ctx.step("first", note, ledger, "first")
    ctx.progress(0.5)
    note(ledger, "begun")
    return ctx.step("second", killed_once)


def late(ctx: Context) -> str:
    """Leave a thread behind that asks when the job has ended."""

    def ask_again() -> None:
        for _ in range(200):
            with contextlib.suppress(InvalidInput):
                ctx.save(1)
            time.sleep(0.005)

    threading.Thread(target=ask_again, daemon=True).start()
    return "done"


def leave_out(ctx: Context, ledger: str) -> None:
    if ctx.attempt == 1:
        ctx.step("first", note, ledger, "first")
        raise ConnectionError


def taken_back(ctx: Context, ledger: str) -> None:
    def work() -> None:
        note(ledger, "ran")
        while "lost" not in noted(ledger):
            time.sleep(0.01)

    try:
        ctx.step("work", work)
    except ClaimLost:
        note(ledger, "ClaimLost")
        raise


def grow() -> int:
    hoard.append(b"x" * (60 * MEBIBYTE))
    return os.getpid()


def tell_pid() -> int:
    return os.getpid()


def nap(seconds: float) -> tuple[float, float]:
    begun = time.monotonic()
    time.sleep(seconds)
    return begun, time.monotonic()


def tell_names() -> list[str]:
    return [multiprocessing.current_process().name, Path("/proc/self/comm").read_text().strip()]


def enqueue_next(ctx: Context) -> list[Any]:
    first = ctx.enqueue("next", {"number": 1}, key="k")
    second = ctx.enqueue("next", {"number": 1}, key="k", priority=3)
    said = []
    for options in ({"connection": object()}, {"tags": lambda: None}, {"priority": "high"}):
        try:
            ctx.enqueue("next", {}, **options)
        except InvalidInput as error:
            said.append(str(error))
    return [first.id, second.id, first.duplicate, second.duplicate, said]


def enqueue_in_loop(ctx: Context) -> int:
    async def work() -> int:
        return int((await ctx.enqueue("next")).id)

    return asyncio.run(work())


def plain(left: int, right: int) -> int:
    return left + right


def plain_with_context(ctx: Context) -> str:
    return f"{ctx.kind} in {ctx.queue}"


def in_child_retry() -> None:
    raise Retry(after=timedelta(hours=2), reason="later")


def in_child_throttled() -> None:
    raise Throttled(retry_after=3600)


def in_child_rescheduled() -> None:
    raise Reschedule(datetime(2100, 1, 1, tzinfo=UTC))


def in_child_dead() -> None:
    raise Dead("never")


def in_child_crash() -> None:
    os._exit(3)


def in_child_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child_exit() -> None:
    sys.exit(4)


def in_child_interrupt() -> None:
    raise KeyboardInterrupt


def in_child_fork() -> None:
    """Leave a fork behind that holds what its parent held open."""
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    os._exit(5)


def in_child_unpicklable() -> Any:
    return threading.Lock()


def in_child_coroutine() -> Any:
    return asyncio.sleep(0)


def in_child_generator() -> Any:
    return (number for number in range(3))


def in_child_enqueues_by_its_program() -> None:
    declared.enqueue("works")  # type: ignore[unused-coroutine]  # a plain handler waits in the call


def in_child_enqueues_by_a_handler() -> None:
    declared.handlers["in_child_crash"].options(delay=60).enqueue_many([{}])  # type: ignore[unused-coroutine]


def in_child_waits_for_a_job() -> None:
    declared.wait(1)  # type: ignore[unused-coroutine]


def in_child_acquires(ctx: Context) -> None:
    ctx.rate_limit.acquire("mail")


class Gone(Dead):
    """Made from what no exception is made of."""

    def __init__(self, *, name: str) -> None:
        super().__init__(f"{name} is gone")


class Unsaid(Dead):
    """Does not tell its base what it was given."""

    def __init__(self, name: str) -> None:
        self.name = name


def in_child_returns_twice() -> str:
    os.fork()
    return "twice"


def in_child_forks() -> int:
    if (fork := os.fork()) == 0:
        sys.exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])


def in_child_echo(number: int) -> int:
    return number


def in_child_writes_everywhere() -> None:
    for descriptor in range(3, 100):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\xff" * 100)


def in_child_gone() -> None:
    raise Gone(name="the file")


def in_child_unsaid() -> None:
    raise Unsaid("the file")


def in_child_chained() -> None:
    try:
        _ = dict[str, int]()["the real reason"]
    except KeyError as error:
        raise Odd("could", two="not") from error


class Odd(Exception):
    """Cannot be made again from what it says."""

    def __init__(self, one: str, *, two: str) -> None:
        super().__init__(f"{one} {two}")


def in_child_odd() -> None:
    raise Odd("very", two="odd")


declared = Forge()
for function in [value for name, value in list(globals().items()) if name.startswith("in_child_")]:
    globals()[function.__name__] = declared.handler(executor="process", max_attempts=2)(function)
