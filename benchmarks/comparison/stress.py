"""Situations that are hard on a queue, what throughput or a pickup is in them, and a long run under load.

`clean` is the same measurement without a situation, in the same round. Throughput is counted by the
handlers here, from the start of the first to that of the last, for more may be in the queue than is worked off.
"""

import asyncio
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.comparison.catalogue import Peer
from benchmarks.comparison.measure import (
    IDLE_RATE,
    LOOK,
    SETTLE,
    Load,
    Record,
    Result,
    Subject,
    Workers,
    pickups_at,
    workers,
)
from benchmarks.comparison.place import Place, fresh
from benchmarks.comparison.process import run
from benchmarks.processor import resident_bytes
from benchmarks.server import Server

MOST_AT_ONCE = 1_000_000  # jobs that one run of an adapter enqueues
STILL = 0.9  # of the processor time of two seconds: less is taken for falling
SURE_LOOKS = 3  # in a row in which it did not fall
SAMPLES = 60  # of a soak
NOTED = 1000  # of so many jobs of a soak one is looked at, so that the notes do not pass for a leak of memory
HELD_UP = 2.0  # seconds without the beginning of a job, in a soak: what is worth a note
LOOKED_EVERY = 0.5  # seconds, for that
ELSEWHERE = "elsewhere"  # the queue of workers that have nothing to do


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is beside the jobs that are worked off."""

    waiting: int = 0  # jobs
    scheduled: int = 0  # jobs that are due in a day
    ended: int = 0  # jobs that are done, and past their retention when the measurement begins
    dead: int = 0  # rows that a transaction which is open keeps from being removed; a pickup is measured
    queues: int = 1
    idle: int = 0  # worker processes on another queue
    general: bool = False  # needs nothing of an adapter but what all have


SITUATIONS = {
    "clean": Situation(general=True),
    "waiting-1m": Situation(waiting=1_000_000, general=True),
    "waiting-10m": Situation(waiting=10_000_000, general=True),
    "scheduled-1m": Situation(scheduled=1_000_000),
    "queues-200": Situation(queues=200),
    "idle-64": Situation(idle=64),
    "swept-1m": Situation(ended=1_000_000),
    "dead-1500k": Situation(dead=1_500_000, general=True),
}
DEAD_ROWS = 2  # that each job leaves, about


def of(peer: Peer) -> Collection[str]:
    """Return the situations that a queue can be put in."""
    return [
        name
        for name, situation in SITUATIONS.items()
        if peer.situations == "all" or (situation.general and peer.situations)
    ]


async def throughput(subject: Subject, server: Server, name: str, jobs: int) -> Result:
    """Return how fast `jobs` jobs are begun in a situation, or how soon a job is with many dead rows."""
    situation = SITUATIONS[name]
    settings = {**subject.given(), "queues": situation.queues}
    given: dict[str, Any] = {"settings": settings}
    async with fresh(subject.described["database"], server) as place, AsyncExitStack() as stack:
        given["url"] = place.url
        await run(subject.peer, "prepare", **given)
        await made(subject, place, situation, given)
        if situation.dead:
            return await pickups_at(subject, place, IDLE_RATE, max(40, int(2 * IDLE_RATE * subject.seconds)))
        if not situation.waiting:
            await run(subject.peer, "enqueue", how="bulk", jobs=jobs, **given)
        await place.settle()
        if situation.idle:
            idle = await stack.enter_async_context(
                workers(subject, place, count=max(4, int(subject.share * situation.idle)), served=[ELSEWHERE])
            )
            idle.go()
            await calm(idle, place, subject.patience)
        async with workers(subject, place, queues=situation.queues) as working:
            load = Load()
            working.go()
            await begun(working, jobs, subject.patience)
            foreign = load.foreign()
            records = await working.stop()
        if situation.idle:
            await idle.stop()
        return {**counted(records, jobs), "foreign": foreign}


async def calm(idle: Workers, place: Place, patience: float) -> None:
    """Workers that have nothing to do have started: the processor time that they and their server take falls no more.

    64 of them take many seconds to start on two processors; what they do in them is not what idle workers do.
    """
    deadline = time.monotonic() + patience
    least, rising = float("inf"), 0
    while rising < SURE_LOOKS and time.monotonic() < deadline:
        before = (idle.seconds() or 0.0) + (place.server_seconds() or 0.0)
        await asyncio.sleep(SETTLE)
        used = (idle.seconds() or 0.0) + (place.server_seconds() or 0.0) - before
        least, rising = (used, 0) if used < STILL * least else (least, rising + 1)


async def begun(working: Workers, jobs: int, patience: float) -> None:
    """So many handlers have begun, or it took too long."""
    deadline = time.monotonic() + patience
    while working.started < jobs and time.monotonic() < deadline:
        await asyncio.sleep(LOOK)
        await working.check()


def counted(records: Collection[Record], jobs: int) -> Result:
    """Return how fast the first `jobs` handlers began."""
    moments = sorted(moment for record in records for moment in record.moments)[:jobs]
    if len(moments) < 2:
        return {"jobs": jobs, "rate": 0.0, "left": jobs - len(moments)}
    seconds = (moments[-1] - moments[0]) / 1e9
    return {"jobs": jobs, "seconds": seconds, "rate": len(moments) / seconds, "left": jobs - len(moments)}


async def made(subject: Subject, place: Place, situation: Situation, given: Any) -> None:
    """The place is in the situation."""
    peer = subject.peer
    if situation.dead:
        await place.pin()
    waiting, scheduled, ended, dead = (
        int(subject.share * count)
        for count in (situation.waiting, situation.scheduled, situation.ended, situation.dead / DEAD_ROWS)
    )
    await enqueued(subject, waiting, given)
    if scheduled:
        await run(peer, "situation", name="scheduled", jobs=scheduled, **given)
    if ended or dead:
        await enqueued(subject, ended or dead, given)
        async with workers(subject, place, every=NOTED) as working:
            working.go()
            await begun(working, ended or dead, 10 * subject.patience)
            while await place.left(subject.described["left"]):
                await asyncio.sleep(SETTLE)
            await working.stop()
    if ended:
        await run(peer, "situation", name="ended", jobs=ended, **given)


async def enqueued(subject: Subject, jobs: int, given: Any) -> None:
    """So many jobs more are in the queue."""
    for start in range(0, jobs, MOST_AT_ONCE):
        size = min(MOST_AT_ONCE, jobs - start)
        await run(subject.peer, "enqueue", how="bulk", jobs=size, **given)


class Stops:
    """When no job began for a while, and what the server did then."""

    def __init__(self, place: Place, began: float) -> None:
        self.found: list[dict[str, Any]] = []
        self._place = place
        self._began = began
        self._before, self._since = 0, began
        self._doing: list[str] = []

    async def look(self, started: int) -> None:
        """So many jobs have begun by now."""
        now = time.monotonic()
        if started != self._before:
            self.end()
            self._before, self._since, self._doing = started, now, []
        elif started and not self._doing and now - self._since > HELD_UP:
            self._doing = await self._place.active() or ["nobody can tell"]

    def end(self) -> None:
        """A stop, if there is one, is over, or lasts until the end of the run."""
        if self._doing:
            at, seconds = round(self._since - self._began, 1), time.monotonic() - self._since
            self.found.append({"at": at, "seconds": seconds, "doing": self._doing})
            self._doing = []


async def soak(subject: Subject, server: Server, rate: float) -> Result:
    """Enqueue `rate` jobs a second for the seconds of the run; return what became of pickup, memory and dead rows, and when
    no job began for a while, with what the server did then.
    """
    samples: list[dict[str, Any]] = []
    async with fresh(subject.described["database"], server) as place:
        given: dict[str, Any] = {"url": place.url, "settings": subject.given()}
        await run(subject.peer, "prepare", **given)
        if subject.peer.situations == "all":
            await run(subject.peer, "situation", name="kept", jobs=0, **given)
        began = time.monotonic()
        stops, every = Stops(place, began), subject.seconds / SAMPLES

        async def look(working: Workers) -> None:
            while True:
                await asyncio.sleep(min(LOOKED_EVERY, every))
                await stops.look(working.started)
                if time.monotonic() - began >= (len(samples) + 1) * every:
                    samples.append(
                        {
                            "at": round(time.monotonic() - began, 1),
                            "begun": working.started,
                            "resident": sum(filter(None, map(resident_bytes, working.pids))),
                            "dead": await place.dead(),
                            "size": await place.size(),
                        }
                    )

        found = await pickups_at(subject, place, rate, int(rate * subject.seconds), NOTED, look, SAMPLES)
        stops.end()
    return {**found, "samples": samples, "stops": stops.found}
