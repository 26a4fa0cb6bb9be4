"""Nodes of flows in a worker: what their functions get, and what becomes of the flow when they are done.

Nothing here writes: what is to change goes with the end of the job, in one transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace as replaced
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from forge_jobs.codecs.bound import result_of
from forge_jobs.codecs.plain import decode, encode
from forge_jobs.handlers.flow_context import ContextFlow
from forge_jobs.model.decision import Dead
from forge_jobs.model.flow import (
    MOST_NODES,
    ClaimedNode,
    Edge,
    FlowChanges,
    NewNode,
    NodePlan,
    NodeState,
    OnDead,
    Role,
)
from forge_jobs.model.job import Claim, End, NewJob, State
from forge_jobs.rules.returned import KeptResult
from forge_jobs.rules.verdict import Verdict

if TYPE_CHECKING:
    from forge_jobs.forge import Forge
    from forge_jobs.handlers.context import Context
    from forge_jobs.handlers.handler import Handler

MOST_BYTES = 2**31 - 1
"""Of what a node gets: as much as results may have that are stored."""


class NodeRun:
    """One attempt of a node. `is_called` says whether its function is called; `result` is what it has where it is not."""

    def __init__(
        self, node: ClaimedNode, claim: Claim, queue: str, handler: "Handler[Any, Any]", forge: "Forge"
    ) -> None:
        self._node, self._claim, self._queue, self._handler, self._forge = node, claim, queue, handler, forge
        self.is_called = node.plan.role in (Role.CALL, Role.REPEAT, Role.BRANCH)
        self.result: Any = None
        self._given: Mapping[str, Any] = {}
        self._changes: FlowChanges | None = None

    def told(self, context: "Context") -> None:
        """The context of its function has its flow."""
        context.told_flow = ContextFlow(self._node)

    def decode(self, payload: bytes, codec: str) -> dict[str, Any]:
        """Return the arguments of its function; without a function that is called, do what its role says. Raises InvalidPayload, Dead."""
        plan = self._node.plan
        self._handler.arguments.require_sealed(codec)
        if plan.role is Role.CALL and not self._node.inputs:
            return self._handler.arguments.decode(payload, codec)
        self._given = decode(payload or b"{}", codec, of=self._claim.kind)
        if not self.is_called:
            self._do(plan)
            return {}
        self._given = {**self._given, **self._received()}
        return self._handler.arguments.decode(self._encoded(self._given), codec)

    def handed_on(self, verdict: Verdict, result: Any, context: "Context | None") -> Verdict:
        """Return the verdict, with what its end changes of the flow. Raises Dead when it returned what its flow cannot use."""
        end = verdict.write
        if not isinstance(end, End) or end.state is not State.DONE:
            return verdict
        plan = self._node.plan
        changes = self._changes
        if plan.role is Role.BRANCH:
            changes = FlowChanges(taken=self._taken(self._plain(result)))
        elif plan.role is Role.REPEAT and self._plain(result) is None:
            changes = self._again(plan)
        flow = None if context is None else context.told_flow
        if flow is not None and flow.added is not None:
            changes = self._with_added(flow, changes)
        if (
            end.result is None
            and end.error is not None
            and plan.feeds
            and (changes is None or changes.successor is None)
        ):
            raise Dead(f"{end.error.removeprefix('done, but ')} Other nodes of its flow would get it.")
        end.changes = changes
        return verdict

    def _plain(self, result: Any) -> Any:
        """Return what the function returned, also one in a process of its own, whose result comes encoded; what cannot be kept, as a note."""
        if type(result) is not KeptResult:
            return result
        if result.encoded is None:
            return result.note
        return decode(result.encoded, self._claim.codec, what="result", of=result_of(self._claim.job_id))

    def _received(self) -> dict[str, Any]:
        """Return what the nodes before it returned, by the arguments that get it."""
        plan, inputs = self._node.plan, self._node.inputs
        if plan.collects is not None:
            return {plan.collects: [_value(one) for one in inputs if one.state is not NodeState.SKIPPED]}
        received: dict[str, Any] = {}
        for name, one in zip(plan.into, inputs, strict=False):
            if name and (one.state is NodeState.DONE or name not in received):
                received[name] = _value(one)  # where several give the same, one that is done, if any is
        return received

    def _do(self, plan: NodePlan) -> None:
        inputs = self._node.inputs
        if plan.role in (Role.COLLECT, Role.GATHER):
            values = [_value(one) for one in inputs]
            self.result = values if plan.role is Role.COLLECT else [one for one in values if one is not None]
            return
        items = self._items(plan)
        received = (plan.item, *plan.into)
        static = {name: value for name, value in self._given.items() if name not in received}
        if plan.role is Role.FOLD:
            self._fold(plan, items, static)
        else:
            self._map(plan, items, static)

    def _items(self, plan: NodePlan) -> Sequence[Any]:
        assert plan.item is not None
        given_by = plan.into[1:] if plan.role is Role.FOLD else plan.into
        fed = {
            one.state: _value(one)
            for name, one in zip(given_by, self._node.inputs, strict=False)
            if name and one.state is not NodeState.SKIPPED
        }
        items = fed.get(NodeState.DONE, fed.get(NodeState.DEAD)) if fed else self._given.get(plan.item)
        if not isinstance(items, list | tuple):
            raise Dead(f"{self._node.name} gets the items of a {type(items).__name__}, allowed is a list")
        if len(items) > MOST_NODES:
            raise Dead(f"{self._node.name} gets {len(items):,} items, allowed are {MOST_NODES:,}")
        return items

    def _map(self, plan: NodePlan, items: Sequence[Any], static: Mapping[str, Any]) -> None:
        assert plan.item is not None
        tolerated = plan.on_dead is not OnDead.FAIL
        rule = OnDead.CONTINUE if tolerated else OnDead.FAIL
        nodes = [
            NewNode(
                f"{self._node.name}[{number}]",
                self._job({**static, plan.item: item}),
                NodePlan(number=number),
                tolerated=tolerated,
                alike=True,
            )
            for number, item in enumerate(items)
        ]
        role = Role.COLLECT if plan.role is Role.MAP else Role.GATHER
        edges = tuple(Edge(index, rule) for index in range(len(nodes)))
        collector = NodePlan(role, feeds=plan.feeds)
        nodes.append(NewNode(f"{self._node.name}[]", self._raw_job(), collector, edges))
        self._changes = FlowChanges(nodes, successor=len(nodes) - 1)

    def _fold(self, plan: NodePlan, items: Sequence[Any], static: Mapping[str, Any]) -> None:
        assert plan.item is not None
        so_far = plan.into[0]
        if not items:
            self.result = self._given[so_far]
            return
        nodes = []
        for number, item in enumerate(items):
            name = f"{self._node.name}[{number}]"
            own = NodePlan(number=number, feeds=plan.feeds or number < len(items) - 1)
            if number == 0:
                job = self._job({**static, so_far: self._given[so_far], plan.item: item})
                nodes.append(NewNode(name, job, own, alike=True))
            else:
                job = self._raw_job({**static, plan.item: item})
                after = (Edge(number - 1),)
                nodes.append(NewNode(name, job, replace(own, into=(so_far,)), after, alike=True))
        self._changes = FlowChanges(nodes, successor=len(nodes) - 1)

    def _again(self, plan: NodePlan) -> FlowChanges:
        if plan.most is not None and plan.iteration >= plan.most:
            raise Dead(
                f"{self._node.name} returned None {plan.iteration} times, which is as often as it may be called"
            )
        name = self._node.name if plan.iteration == 1 else self._node.name.rpartition("#")[0]
        more = replace(plan, iteration=plan.iteration + 1, into=(), collects=None)
        delay = timedelta(seconds=plan.every) if plan.every else None
        node = NewNode(
            f"{name}#{plan.iteration + 1}", self._raw_job(self._given), more, delay=delay, alike=True
        )
        return FlowChanges((node,), successor=0)

    def _taken(self, result: Any) -> tuple[str, ...]:
        """Return the names of the nodes that it leads to: the first ones of the routes that were chosen, and those that wait for it anyhow."""
        waiting = self._node.successors
        routes = self._node.plan.routes or {name: (name,) for name in waiting}
        taken: list[str] = []
        for route in result if isinstance(result, list | tuple) else [result]:
            if not isinstance(route, str) or route not in routes:
                is_hidden = self._handler.arguments.hidden(self._claim.codec) is True
                shown = "what is not shown" if is_hidden else repr(route)
                raise Dead(f"{self._node.name} leads to {shown}, allowed is one of {', '.join(routes)}")
            taken += routes[route]
        first = {name for names in routes.values() for name in names}
        return (*taken, *(name for name in waiting if name not in first))

    def _with_added(self, flow: ContextFlow, changes: FlowChanges | None) -> FlowChanges:
        assert flow.added is not None
        if changes is not None and changes.successor is not None and flow.answer is not None:
            raise Dead(f"{self._node.name} is repeated and has added its answer, allowed is one of them")
        added = flow.added.build().nodes
        changes = changes or FlowChanges()
        first = len(changes.nodes)
        moved = [_moved(node, first) for node in added]
        successor = changes.successor
        if flow.answer is not None:
            successor = first + [node.name for node in added].index(flow.answer.name)
            answer = moved[successor - first]
            feeds = answer.plan.feeds or self._node.plan.feeds
            moved[successor - first] = replaced(answer, plan=replace(answer.plan, feeds=feeds))
        return FlowChanges([*changes.nodes, *moved], successor, changes.taken)

    def _job(self, arguments: Mapping[str, Any]) -> NewJob:
        """Return a job like this one with these arguments. Raises InvalidPayload."""
        return self._alike(self._limited(self._forge.job(self._claim.kind, dict(arguments))))

    def _raw_job(self, arguments: Mapping[str, Any] | None = None) -> NewJob:
        """Return a job like this one that gets more when it begins."""
        claim = self._claim
        job = NewJob(claim.kind, self._encoded(dict(arguments or {})), claim.codec)
        if arguments is not None:  # its function is called
            said = self._handler.defaults
            job = self._limited(replace(job, start_by=said.start_by, deadline=said.deadline))
        return self._alike(job)

    def _limited(self, job: NewJob) -> NewJob:
        """Return the job with the time limits that the node hands on, if it has any."""
        said = {"start_by": self._node.plan.start_by, "deadline": self._node.plan.deadline}
        limits = {
            name: timedelta(seconds=limit) if isinstance(limit, float) else limit
            for name, limit in said.items()
            if limit is not None
        }
        return replace(job, **limits) if limits else job

    def _encoded(self, arguments: Mapping[str, Any]) -> bytes:
        return encode(arguments, self._claim.codec, limit=MOST_BYTES, of=self._claim.kind)

    def _alike(self, job: NewJob) -> NewJob:
        claim = self._claim
        timeout = None if claim.timeout is None else timedelta(seconds=claim.timeout)
        return replace(
            job,
            queue=self._queue,
            priority=claim.priority,
            max_attempts=claim.max_attempts,
            timeout=timeout,
            meta=claim.meta,
            declared=True,
        )


def _moved(node: NewNode, by: int) -> NewNode:
    edges = tuple(Edge(edge.index + by, edge.on_dead) for edge in node.after)
    return NewNode(node.name, node.job, node.plan, edges, node.delay, node.tolerated)


def _value(one: Any) -> Any:
    if one.result is None or one.state is not NodeState.DONE:
        return None
    return decode(one.result, one.codec, what="result", of=result_of(one.job_id))
