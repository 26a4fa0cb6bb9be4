"""Programs without an event loop, as processes of their own: `python program.py NAME URL`."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from forge_jobs import Forge, State

forge = Forge(sys.argv[2])


def enqueue(who: str, count: int) -> None:
    for number in range(count):
        forge.sync.enqueue("send", {"who": who, "number": number})


def in_a_child(who: str) -> int:
    """Fork a child that enqueues in several threads, and ends as any Python does; return its id."""
    pid = os.fork()
    if pid:
        return pid
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda number: enqueue(f"{who}.{number}", 4), range(3)))
    sys.exit(0)


def fork() -> None:
    """Children are forked of a parent that has enqueued, and goes on: as by gunicorn --preload."""
    enqueue("parent", 5)
    children = [in_a_child(f"child {number}") for number in range(3)]
    enqueue("parent", 5)
    print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])
    enqueue("parent", 5)
    print(forge.sync.jobs.count(state=State.PENDING))


def fork_in_the_middle() -> None:
    """Children are forked while other threads of their parent are in the middle of a call."""
    over = threading.Event()
    made = [
        forge.sync.enqueue("send")
    ]  # so that nothing is left to import, whose locks Python would leave locked in a child

    def go_on() -> None:
        while not over.is_set():
            made.append(forge.sync.enqueue("send"))

    threads = [threading.Thread(target=go_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    codes = []
    for number in range(6):
        pid = in_a_child(f"child {number}")
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    over.set()
    for thread in threads:
        thread.join()
    print(codes)
    print(forge.sync.jobs.count(state=State.PENDING) - len(made))


if __name__ == "__main__":
    {"fork": fork, "fork_in_the_middle": fork_in_the_middle}[sys.argv[1]]()
