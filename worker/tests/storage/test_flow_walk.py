"""Whatever is done to flows, in any order, both databases say of them what a small model says."""

import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from forge_jobs.errors import JobNotFound, WrongState
from forge_jobs.model.flow import Edge, FlowChanges, NewFlow, NewNode, NodePlan, OnDead, Role
from forge_jobs.model.job import NewJob, State
from forge_jobs.model.signal import NewSignal, NewWait, Recipient, Signalled
from tests.storage.factories import claim, dead, done, failed, leader, parked, worker
from tests.storage.flow_model import ModelFlow

STEPS = 60
RULES = (OnDead.FAIL, OnDead.FAIL, OnDead.SKIP, OnDead.CONTINUE)


def nodes(dice, many):
    """Some nodes, each of which waits for some of those before it."""
    rules = [dice.choice(RULES) for _ in range(many)]
    return [
        NewNode(
            f"n{number}",
            NewJob("work"),
            NodePlan(Role.BRANCH) if dice.random() < 0.3 else NodePlan(),
            tuple(
                Edge(before, rules[before])
                for before in sorted(dice.sample(range(number), min(number, dice.randint(0, 3))))
            ),
            tolerated=rules[number] is not OnDead.FAIL,
        )
        for number in range(many)
    ]


class Walk:
    """Flows, and the models of them."""

    def __init__(self, storage, me, seed):
        self.storage, self.me, self.dice = storage, me, random.Random(seed)
        self.flows = {}  # models by the ids of flows
        self.branches = set()  # the ids of jobs
        self.held = []  # claims
        self.waits = {}  # the names of the last waits of jobs, and of what would end them
        self.names = {}  # by the ids of jobs

    async def start(self):
        added = nodes(self.dice, self.dice.randint(3, 9))
        flow_id, ids = await self.storage.flows.start(NewFlow("f", added))
        self.flows[flow_id] = ModelFlow()
        self._add(self.flows[flow_id], added, list(ids))

    def _add(self, flow, added, ids):
        flow.add(added, ids)
        self.branches |= {one for one, node in zip(ids, added, strict=True) if node.plan.role is Role.BRANCH}

    def flow_of(self, job_id):
        return next(flow for flow in self.flows.values() if job_id in flow.nodes)

    async def claim(self):
        for one in await claim(self.storage, self.me, limit=self.dice.randint(1, 5)):
            node = self.flow_of(one.job_id).nodes[one.job_id]
            assert node.state == "pending"
            node.state = "in_progress"
            self.held.append(one)

    async def finish(self):
        """Some of the claims end in one batch."""
        if not self.held:
            return
        self.dice.shuffle(self.held)
        many = self.dice.randint(1, 4)
        ending, self.held = self.held[:many], self.held[many:]
        ending.sort(key=lambda one: one.job_id)  # in this order their nodes are added
        ends = [self._end(one) for one in ending]
        known = {job_id for flow in self.flows.values() for job_id in flow.nodes}
        assert await self.storage.claims.finish(ends) == []
        for flow_id, flow in self.flows.items():
            found = await self.storage.flows.nodes(flow_id)
            new = iter(one.job_id for one in found if one.job_id not in known)
            own = [end for end in ends if end.claim.job_id in flow.nodes]
            grown = [end for end in own if end.changes is not None and not flow.is_cancelled]
            order = [(end, [next(new) for _ in end.changes.nodes]) for end in grown]
            for end, ids in order:
                self._add(flow, end.changes.nodes, ids)
            added = {end.claim.job_id: ids for end, ids in order}
            for end in own:
                self._apply(flow, end, added.get(end.claim.job_id))

    def _end(self, one):
        if self.dice.random() < 0.25:
            return dead(one)
        if one.job_id in self.branches:
            names = [f"n{number}" for number in range(9) if self.dice.random() < 0.6]
            return done(one, changes=FlowChanges(taken=tuple(names)))
        if self.dice.random() < 0.2:
            added = nodes(self.dice, self.dice.randint(1, 3))
            added[-1] = replace(added[-1], tolerated=False)  # it is so where what it answers for is
            return done(one, changes=FlowChanges(added, successor=self.dice.choice([None, len(added) - 1])))
        return done(one)

    def _apply(self, flow, end, ids):
        job_id, changes = end.claim.job_id, end.changes
        if changes is None or ids is None:
            flow.end(job_id, "dead" if changes is not None else end.state.value)
            return
        after = [other for other, node in flow.nodes.items() if job_id in node.before]
        past = [] if changes.taken is None else [one for one in after if self.names[one] not in changes.taken]
        flow.end(
            job_id, "done", heir=None if changes.successor is None else ids[changes.successor], past=past
        )

    async def come_back(self):
        """A claim is handed back, or its attempt has failed; one that was told to stop ends then."""
        if not self.held:
            return
        one = self.held.pop(self.dice.randrange(len(self.held)))
        write, given = self.dice.choice(
            [
                (self.storage.claims.hand_back, one),
                (self.storage.claims.postpone, failed(one, delay=timedelta(0))),
            ]
        )
        assert await write([given]) == []
        await self.storage.schedule.make_pending()
        flow = self.flow_of(one.job_id)
        node = flow.nodes[one.job_id]
        flow.end(one.job_id, "dead" if node.is_told else "pending")

    async def wait(self):
        if not self.held:
            return
        one = self.held.pop(self.dice.randrange(len(self.held)))
        flow, number = self.flow_of(one.job_id), len(self.waits) + 1
        name = self.waits[one.job_id] = f"go {one.job_id} {one.attempt} {number}"
        await self.storage.signals.wait(one, NewWait(number, name, (name,), None, None))
        assert await self.storage.claims.postpone([parked(one, name)]) == []
        flow.end(one.job_id, "dead" if flow.nodes[one.job_id].is_told else "waiting")

    async def signal(self):
        waiting = [job_id for job_id in self.waits if self.flow_of(job_id).nodes[job_id].state == "waiting"]
        for job_id in waiting[:1]:
            sent = await self.storage.signals.send(Recipient(job_id), NewSignal(self.waits[job_id]))
            assert sent == [(job_id, Signalled.WOKEN)]
            self.flow_of(job_id).end(job_id, "pending")

    async def cancel_job(self):
        flow = self.dice.choice(list(self.flows.values()))
        job_id = self.dice.choice(list(flow.nodes))
        node = flow.nodes[job_id]
        with suppress(WrongState, JobNotFound):
            await self.storage.jobs.cancel(job_id)
        if node.state == "in_progress":
            node.is_told = True
        elif not node.has_ended:
            flow.end(job_id, "dead")

    async def delete_job(self):
        flow = self.dice.choice(list(self.flows.values()))
        job_id = self.dice.choice(list(flow.nodes))
        node = flow.nodes[job_id]
        with suppress(WrongState, JobNotFound):
            await self.storage.jobs.delete(job_id)
        node.is_kept = node.is_kept and node.state == "in_progress"
        if not node.is_kept and not node.has_ended:
            flow.end(job_id, "dead")

    async def complete_job(self):
        flow = self.dice.choice(list(self.flows.values()))
        job_id = self.dice.choice(list(flow.nodes.keys() - self.branches))
        node = flow.nodes[job_id]
        with suppress(WrongState, JobNotFound):
            await self.storage.corrections.end(job_id, State.DONE, result=b"1")
        if node.state == "dead":
            node.was_mended = node.is_kept
        elif not node.has_ended and node.state != "in_progress":
            flow.end(job_id, "done")

    async def cancel_flow(self):
        flow_id = self.dice.choice(list(self.flows))
        await self.storage.flows.cancel(flow_id)
        self.flows[flow_id].cancel()

    async def retry_flow(self):
        flow_id = self.dice.choice(list(self.flows))
        await self.storage.flows.retry(flow_id)
        self.flows[flow_id].retry()

    async def compare(self):
        for flow_id, flow in self.flows.items():
            found = await self.storage.flows.nodes(flow_id)
            self.names |= {one.job_id: one.name for one in found}
            said = {one.job_id: (one.state, one.waits_for, set(one.after)) for one in found}
            ended = {one for one, node in flow.nodes.items() if node.has_ended}
            assert said == {
                job_id: (
                    "done" if node.was_mended and node.is_kept else node.state,
                    0 if node.has_ended else len(node.before.keys() - ended),
                    set(node.before),
                )
                for job_id, node in flow.nodes.items()
            }
            row = await self.storage.flows.get(flow_id)
            assert (row.state, (row.nodes, row.done, row.dead, row.skipped)) == (flow.state, flow.counts)
        kept = [node for flow in self.flows.values() for node in flow.nodes.values() if node.is_kept]
        counted = Counter("done" if node.was_mended else node.state for node in kept)
        [counts] = await self.storage.jobs.counts()
        assert counts.done == counted["done"] + counted["skipped"]
        for state in ("pending", "blocked", "waiting", "in_progress", "dead"):
            assert getattr(counts, state) == counted[state]


@pytest.mark.parametrize("seed", range(3))
async def test_flows_are_what_a_model_says_whatever_is_done_to_them(storage, seed):
    walk = Walk(storage, await worker(storage), seed)
    for _ in range(3):
        await walk.start()
    await walk.compare()
    moves = {
        walk.claim: 6.0,
        walk.finish: 6.0,
        walk.come_back: 1.0,
        walk.wait: 1.0,
        walk.signal: 1.0,
        walk.cancel_job: 1.0,
        walk.delete_job: 0.2,
        walk.complete_job: 1.0,
        walk.cancel_flow: 0.5,
        walk.retry_flow: 2.0,
    }

    for _ in range(STEPS):
        [move] = walk.dice.choices(list(moves), list(moves.values()))
        await move()
        await walk.compare()

    assert await storage.flows.audit(epoch=await leader(storage)) == 0
    assert [look.findings async for look in storage.audit.jobs() if look.findings] == []
    assert await storage.audit.counts() == []
