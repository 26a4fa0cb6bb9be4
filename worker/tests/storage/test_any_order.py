"""Whatever many do at once, in whatever order: every job stays in one place, and nobody waits for ever."""

import asyncio
import random
from contextlib import suppress
from datetime import timedelta

import pytest

from forge_jobs.errors import (
    ForgeError,
    JobNotFound,
    StorageUnavailable,
    UnknownGroup,
    WorkerLost,
    WrongState,
)
from forge_jobs.model.correction import Correction
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import KeyMode, NewJob, Postponement, Reason, State
from forge_jobs.model.match import Move
from forge_jobs.model.signal import NewSignal, NewWait, Recipient, SignalMode
from tests.storage.factories import dead, done, failed, leader, lost_claims, move_all, parked, queue, worker
from tests.storage.invariants import check_invariants

STALE = timedelta(minutes=5)
QUEUES = ("default", "narrow")


class Walker:
    """One process that does anything, as its dice fall."""

    def __init__(self, storage, dice, epoch, ids, queue_ids):
        self.storage, self.dice, self.epoch = storage, dice, epoch
        self.ids, self.queue_ids = ids, queue_ids
        self.claims = []

    async def walk(self, steps):
        self.me = await worker(self.storage, QUEUES)
        actions = [action for action, weight in ACTIONS.items() for _ in range(weight)]
        for _ in range(steps):
            try:
                await self.dice.choice(actions)(self)
            except (JobNotFound, WrongState):
                pass  # another one was first
            except WorkerLost:
                self.me = await worker(self.storage, QUEUES)

    def some_id(self):
        return self.dice.choice(self.ids) if self.ids else 1

    def some_claims(self):
        taken = [claim for claim in self.claims if self.dice.random() < 0.6]
        self.claims = [claim for claim in self.claims if claim not in taken]
        self.dice.shuffle(taken)
        return taken

    def some_job(self):
        key = self.dice.choice([None, None, "a", "b", "c"])
        delay = self.dice.choice([None, None, timedelta(seconds=30)])
        name = self.dice.choice(QUEUES)
        groups = self.some_groups()
        return NewJob(
            "work",
            payload=b"[]",
            queue=name,
            key=key,
            key_mode=self.dice.choice(list(KeyMode)),
            delay=delay,
            priority=self.dice.choice([0, 0, 1]),
            groups=groups,
            tenant=self.dice.choice([None, None, "a", "b"]) if groups is None else None,
        )

    def some_groups(self):
        names = self.dice.choice([[], [], ["x"], ["y"], ["x", "y"], ["y", "z"]])
        overflow = self.dice.choice(["wait", "wait", "drop_newest", "cancel_running"])
        return encoded(Group(name, self.dice.choice([None, 1, 2]), overflow) for name in names)

    async def enqueue(self):
        self.ids.append((await self.storage.jobs.enqueue(self.some_job())).id)

    async def enqueue_many(self):
        answers = await self.storage.jobs.enqueue_many(
            [self.some_job() for _ in range(self.dice.randint(0, 9))]
        )
        self.ids += [answer.id for answer in answers]

    async def claim(self):
        default, narrow = self.queue_ids
        await self.storage.slots.take(narrow, self.me, self.dice.randint(0, 2))
        for queue_id in (default, narrow):
            self.claims += await self.storage.claims.claim(queue_id, self.me, limit=self.dice.randint(1, 6))

    async def finish(self):
        await self.storage.claims.finish(
            [self.dice.choice([done, dead])(one, keep=self.dice.random() < 0.7) for one in self.some_claims()]
        )

    async def postpone(self):
        await self.storage.claims.postpone(
            [
                failed(one, delay=timedelta(seconds=self.dice.choice([0, 20])))
                if self.dice.random() < 0.7
                else Postponement(
                    one,
                    self.dice.choice([Reason.THROTTLED, Reason.UNREADABLE]),
                    timedelta(seconds=20),
                    counted=False,
                )
                for one in self.some_claims()
            ]
        )

    async def wait(self):
        waits = []
        for one in self.some_claims():
            for_job = self.some_id() if self.dice.random() < 0.3 else None
            names = ("go", "stop") if for_job is None else ()
            wait = NewWait(1, "wait", names, for_job, self.dice.choice([None, 20.0]))
            if await self.storage.signals.wait(one, wait) is not None:
                waits.append(parked(one, "wait"))
        await self.storage.claims.postpone(waits)

    async def signal(self):
        signal = NewSignal(self.dice.choice(["go", "other"]), b"1", mode=self.dice.choice(list(SignalMode)))
        key = self.dice.choice([None, None, "a", "b"])
        to = Recipient(self.some_id()) if key is None else Recipient(kind="work", key=key)
        await self.storage.signals.send(to, signal)

    async def hand_back(self):
        await self.storage.claims.hand_back(self.some_claims())

    async def give_back(self):
        await self.storage.slots.give_back(self.queue_ids[1], self.me, self.dice.randint(0, 2))

    async def vanish(self):
        await self.storage.workers.deregister(self.me)
        self.me = await worker(self.storage, QUEUES)

    async def reap(self):
        lost = await lost_claims(self.storage, stale=STALE)
        await self.storage.claims.postpone([failed(one, "worker lost", delay=timedelta(0)) for one in lost])

    async def cancel(self):
        await self.storage.jobs.cancel(self.some_id())

    async def retry(self):
        await self.storage.jobs.retry(self.some_id())

    async def run_now(self):
        await self.storage.jobs.run_now(self.some_id())

    async def remove(self):
        await self.storage.keys.remove("work", self.dice.choice("abc"))

    async def delete(self):
        await self.storage.jobs.delete(self.some_id())

    async def end_by_hand(self):
        await self.storage.corrections.end(
            self.some_id(), self.dice.choice([State.DONE, State.DEAD]), error="no"
        )

    async def change(self):
        await self.storage.corrections.change(
            self.some_id(),
            Correction(
                queue=self.dice.choice([None, None, *QUEUES]),
                priority=self.dice.choice([None, 0, 1]),
                attempts=self.dice.choice([None, 0]),
                delay=self.dice.choice([None, None, timedelta(0), timedelta(seconds=30)]),
            ),
        )

    async def move_some(self):
        move = self.dice.choice([Move.CANCEL, Move.RETRY, Move.DELETE])
        filters = {"queue": self.dice.choice([None, *QUEUES]), "limit": self.dice.randint(1, 6)}
        async for _ in move_all(self.storage, move, self.dice.choice(move.states), **filters):
            if self.dice.random() < 0.3:
                break  # given up half-way

    async def look(self):
        await self.storage.jobs.get(self.some_id())
        await self.storage.jobs.find(limit=5)
        await self.storage.jobs.waiting(self.some_id())

    async def make_pending(self):
        await self.storage.schedule.make_pending(limit=self.dice.randint(1, 20))

    async def chores(self):
        await self.storage.workers.beat(self.me)
        await self.storage.signals.end_waits(epoch=self.epoch)
        await self.storage.history.sweep(epoch=self.epoch, limit=5)
        await self.storage.jobs.fold()
        await self.storage.groups.forget(epoch=self.epoch)  # no audit, which would hide who was left behind
        with suppress(UnknownGroup):
            await self.storage.groups.set(self.dice.choice("xyz"), self.dice.choice([None, 1, 3]))

    async def tune(self):
        changes = {
            "done_retention": timedelta(seconds=self.dice.choice([1, 1000])),
            "paused": self.dice.random() < 0.1,
        }
        await self.storage.queues.set(self.dice.choice(QUEUES), changes)


ACTIONS = {
    Walker.enqueue: 3,
    Walker.enqueue_many: 2,
    Walker.claim: 6,
    Walker.finish: 4,
    Walker.postpone: 3,
    Walker.hand_back: 1,
    Walker.wait: 3,
    Walker.signal: 4,
    Walker.give_back: 2,
    Walker.vanish: 1,
    Walker.reap: 2,
    Walker.cancel: 2,
    Walker.retry: 2,
    Walker.run_now: 2,
    Walker.delete: 2,
    Walker.remove: 1,
    Walker.end_by_hand: 2,
    Walker.change: 3,
    Walker.move_some: 2,
    Walker.look: 1,
    Walker.make_pending: 2,
    Walker.chores: 1,
    Walker.tune: 1,
}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_job_stays_in_one_place_whatever_many_do_at_once(storage, another, database, clock, seed):
    dice = random.Random(seed)
    narrow = (await storage.queues.set("narrow", {"concurrency": 3})).id
    queue_ids = ((await queue(storage)).id, narrow)
    storages = [storage, *[await another() for _ in range(4)]]
    epoch, ids = await leader(storage), list[int]()
    walkers = [Walker(mine, random.Random(dice.random()), epoch, ids, queue_ids) for mine in storages]

    for _ in range(4):
        await asyncio.gather(*(walker.walk(40) for walker in walkers))
        await check_invariants(storage, database)
        await clock.advance(minutes=1)


async def test_nothing_that_fails_is_anything_but_an_error_of_ours(storage):
    me = await worker(storage)
    for call in (
        storage.jobs.get(-1),
        storage.jobs.get(2**63),
        storage.jobs.cancel(2**70),
        storage.workers.beat(-me),
        storage.jobs.enqueue(NewJob("work", priority=2**40)),
    ):
        with pytest.raises(ForgeError) as caught:
            await call
        assert not isinstance(caught.value, StorageUnavailable)
