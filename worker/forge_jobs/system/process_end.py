"""The end of a worker's process: nothing that handlers left behind keeps it.

Python waits for threads, and asyncio for tasks that ignore being cancelled, for ever perhaps.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable

MOST_NAMED = 10


def end_within(seconds: float, code: int, say: Callable[[str], None]) -> None:
    """The process ends in that time, by itself or else with `code`; then `say` hears what goes on.

    A program that ran the worker in its own process, and goes on after it, is left alone.
    """
    loop = asyncio.get_running_loop()
    threading.Thread(
        target=_end, args=(seconds, code, say, loop), name="forge-jobs-ending", daemon=True
    ).start()


def _end(seconds: float, code: int, say: Callable[[str], None], loop: asyncio.AbstractEventLoop) -> None:
    time.sleep(seconds)
    if loop.is_closed() and threading.main_thread().is_alive():  # nothing hangs: the caller has other work
        return
    say(f"What handlers started still runs ({_named(loop)}); the process ends now.")
    if multiprocessing := sys.modules.get("multiprocessing"):
        for child in multiprocessing.active_children():
            child.terminate()
    os._exit(code)


def _named(loop: asyncio.AbstractEventLoop) -> str:
    left = [f"thread {thread.name}" for thread in threading.enumerate() if not thread.daemon]
    left = [name for name in left if name != f"thread {threading.main_thread().name}"]
    if not loop.is_closed():
        left += [f"task {task.get_name()}" for task in asyncio.all_tasks(loop)]
    if multiprocessing := sys.modules.get("multiprocessing"):
        left += [f"process {child.name}" for child in multiprocessing.active_children()]
    more = len(left) - MOST_NAMED
    return ", ".join(left[:MOST_NAMED] + ([f"{more} more"] if more > 0 else [])) or "something unknown"
