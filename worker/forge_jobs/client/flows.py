"""Flows as people handle them: started, looked at, retried, cancelled, waited for."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from forge_jobs.client.acting import who_acts
from forge_jobs.codecs.bound import result_of
from forge_jobs.codecs.plain import decode
from forge_jobs.errors import FlowDead, FlowNotFound, InvalidInput, WrongFlowState
from forge_jobs.handlers.context import answered
from forge_jobs.handlers.flow import Flow
from forge_jobs.model.flow import FlowNode, FlowState, FlowStatus
from forge_jobs.model.moments import as_duration
from forge_jobs.rules.checks import whole
from forge_jobs.storage.interface.storage import Storage

if TYPE_CHECKING:
    from forge_jobs.client.waits import Reason
    from forge_jobs.forge import Forge

MOST_LISTED = 10_000

Ended = Callable[[Sequence[int], timedelta | None, "Reason"], Awaitable[Sequence[FlowStatus | None]]]
"""Returns how flows have ended once all have, as `Waits.ended` does."""


@dataclass(frozen=True, slots=True)
class StartedFlow:
    """A flow that was started."""

    id: int
    jobs: Mapping[str, int]  # the ids of its jobs, by the names of its nodes


@dataclass(frozen=True, slots=True)
class RetriedFlows:
    """What became of all dead flows."""

    retried: int
    left: Sequence[int] = ()  # the ids of those of which a job was deleted, so that they cannot go on


class Flows:
    """The flows whose jobs are kept. Reached as `forge.flows`."""

    def __init__(self, forge: "Forge", storage: Storage, ended: Ended) -> None:
        self._forge = forge
        self._storage = storage
        self._ended = ended

    def start(
        self, flow: Flow, *given: Any, inputs: Sequence[Any] | None = None, connection: Any = None
    ) -> Coroutine[Any, Any, StartedFlow]:
        """The flow runs, or nothing is enqueued; to be awaited as `enqueue`. Each of its first nodes gets what is `given`, or each
        one of `inputs`. With `connection` it is part of that transaction. Raises InvalidInput, InvalidPayload, UnknownQueue.
        """
        return answered(
            self._forge,
            self._start(flow, *given, inputs=inputs, connection=connection),
            "forge.flows.start",
            connection,
        )

    async def _start(
        self, flow: Flow, *given: Any, inputs: Sequence[Any] | None, connection: Any
    ) -> StartedFlow:
        if not isinstance(flow, Flow):
            raise InvalidInput(f"flow is {flow!r}, allowed is a Flow.")
        built = flow.build(*given, inputs=inputs)
        flow_id, job_ids = await self._storage.flows.start(built, connection=connection)
        names = [node.name for node in built.nodes]
        return StartedFlow(flow_id, dict(zip(names, job_ids, strict=True)))

    async def list(
        self,
        *,
        state: FlowState | str | None = None,
        name: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[FlowStatus]:
        """Return flows, the newest first, `limit` at most; the next ones with `before`, the id of the last. Raises InvalidInput."""
        return await self._storage.flows.all(
            state=None if state is None else _state(state),
            name=name,
            before=None if before is None else whole(before, "before", least=1, most=2**63 - 1),
            limit=whole(limit, "limit", least=1, most=MOST_LISTED),
        )

    async def get(self, flow_id: int) -> FlowStatus:
        """Return the flow. Raises FlowNotFound, InvalidInput."""
        found = await self._storage.flows.get(_id(flow_id))
        if found is None:
            raise FlowNotFound(flow_id)
        return found

    async def nodes(self, flow_id: int, *, after: int = -1, limit: int = 1000) -> Sequence[FlowNode]:
        """Return its nodes in the order in which they were added; the next ones with `after`, the number of the last. Raises
        FlowNotFound, InvalidInput.
        """
        limit = whole(limit, "limit", least=1, most=MOST_LISTED)
        nodes = await self._storage.flows.nodes(_id(flow_id), after=after, limit=limit)
        if not nodes:
            await self.get(flow_id)
        return nodes

    async def cancel(self, flow_id: int) -> FlowStatus:
        """Its nodes that wait are dead, and those that run are told to stop; when they have ended, it is cancelled. Return it.

        Raises FlowNotFound, InvalidInput, and WrongFlowState when it has ended.
        """
        was = await self._storage.flows.cancel(_id(flow_id), by=who_acts())
        if was is None:
            raise FlowNotFound(flow_id)
        if was is not FlowState.RUNNING:
            raise WrongFlowState(flow_id, was, "cancelled", "a running one")
        return await self.get(flow_id)

    async def retry(self, flow_id: int) -> FlowStatus:
        """It goes on from what failed: its dead nodes run again, with attempts counted from 0, and after them those that had waited
        for them. Nodes that are done stay so, and so do those that failed and that it can do without. Return it.

        Raises FlowNotFound, InvalidInput, and WrongFlowState when it is neither dead nor cancelled, or a job of its is gone.
        """
        was, gone = await self._storage.flows.retry(_id(flow_id), by=who_acts())
        if was is None:
            raise FlowNotFound(flow_id)
        if gone is not None:
            raise InvalidInput(
                f"Flow {flow_id} cannot be retried: its job {gone} was deleted; start it anew."
            )
        if was not in (FlowState.DEAD, FlowState.CANCELLED):
            raise WrongFlowState(flow_id, was, "retried", "a dead or a cancelled one")
        return await self.get(flow_id)

    async def retry_all(self, *, name: str | None = None) -> RetriedFlows:
        """All dead flows, or those of this name, go on as `retry` says; return how many, and which could not.

        They go one by one: where this is stopped in the middle, call it again. Raises InvalidInput.
        """
        retried, left = 0, list[int]()
        before: int | None = None
        while flows := await self.list(state=FlowState.DEAD, name=name, before=before, limit=MOST_LISTED):
            before = flows[-1].id
            for flow in flows:
                was, gone = await self._storage.flows.retry(flow.id, by=who_acts())
                if gone is not None:
                    left.append(flow.id)
                elif was in (FlowState.DEAD, FlowState.CANCELLED):  # else somebody else was faster
                    retried += 1
        return RetriedFlows(retried, left)

    async def wait(
        self, flow: "int | StartedFlow", *, timeout: timedelta | float | None = None
    ) -> Mapping[str, Any]:
        """Return what its last nodes returned, by their names, once it is done; None where that could not be kept, as `forge.wait` does.
        An outage of the database is waited for.

        Raises FlowDead when it ends otherwise, WaitTimeout after `timeout` (seconds or timedelta), FlowNotFound, InvalidInput.
        """
        flow_id = _id(flow.id if isinstance(flow, StartedFlow) else flow)
        [status] = await self._ended([flow_id], as_duration(timeout, "timeout"), self._what_is_left)
        if status is None:
            raise FlowNotFound(flow_id)
        if status.state is not FlowState.DONE:
            raise FlowDead(flow_id, status.state, await self._first_error(flow_id))
        results = await self._storage.flows.results(flow_id)
        return {
            name: None if result is None else decode(result, codec, what="result", of=result_of(job_id))
            for name, job_id, codec, result in results
        }

    async def _what_is_left(self, flow_id: int) -> str:
        return f"{(await self.get(flow_id)).left} nodes have not ended"

    async def _first_error(self, flow_id: int) -> str | None:
        found = await self._storage.flows.first_error(flow_id)
        return None if found is None else ": ".join(found)


def _id(flow_id: object) -> int:
    return whole(flow_id, "flow_id", least=1, most=2**63 - 1)


def _state(state: object) -> FlowState:
    try:
        return FlowState(state)  # type: ignore[arg-type]  # that is found out here
    except ValueError:
        raise InvalidInput(f"state is {state!r}, allowed is one of {', '.join(FlowState)}.") from None
