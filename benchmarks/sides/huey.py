"""huey's SqliteHuey with its consumer in threads, which is what huey runs by default.

`fsync` is off: it then does not wait for the disk at all, where forge-jobs waits at
checkpoints. Nothing is returned by the task, so huey keeps no result and writes nothing
when it ends: the job is deleted when it is taken, and that commit is its last.
"""

import time
from typing import Any

from huey import SqliteHuey
from huey.signals import SIGNAL_COMPLETE

from benchmarks.sides.told import Usage
from benchmarks.workload import PAYLOAD, Starts

THREADS = 1
LOOK_SECONDS = 0.01


def program(path: str, starts: Starts) -> tuple[Any, Any]:
    """Return a program, and its one task, which does nothing."""
    huey = SqliteHuey("bench", filename=path, fsync=False)

    def nothing(pad: str) -> None:
        starts.one()

    return huey, huey.task()(nothing)


def fill(path: str, jobs: int) -> None:
    """So many jobs wait."""
    huey, nothing = program(path, Starts())
    for _ in range(jobs):
        nothing(**PAYLOAD)
    huey.storage.close()


def work_through(path: str, jobs: int, threads: int = THREADS) -> dict[str, Any]:
    """Run all jobs."""
    starts = Starts()
    huey, _ = program(path, starts)
    done = 0
    last = 0.0

    def completed(signal: str, task: Any) -> None:
        nonlocal done, last
        done += 1
        if done >= jobs:
            last = time.monotonic()

    huey.signal(SIGNAL_COMPLETE)(completed)
    consumer = huey.create_consumer(workers=threads, worker_type="thread", periodic=False)
    before = Usage.now()
    consumer.start()
    while starts.count < jobs or not last:
        time.sleep(LOOK_SECONDS)
    used = before.until(Usage.now())
    consumer.stop(graceful=True)
    return {"seconds": last - starts.first, "jobs": done, "started": starts.count, "cpu": used["cpu"]}
