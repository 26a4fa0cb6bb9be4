"""`forge.sync.flows`: what `forge.flows` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from forge_jobs.client.flows import Flows, RetriedFlows, StartedFlow
from forge_jobs.handlers.flow import Flow
from forge_jobs.model.flow import FlowNode, FlowState, FlowStatus
from forge_jobs.sync.noun import SyncNoun


class SyncFlows(SyncNoun[Flows]):
    """The flows whose jobs are kept. Reached as `forge.sync.flows`."""

    def start(
        self, flow: Flow, *given: Any, inputs: Sequence[Any] | None = None, connection: Any = None
    ) -> StartedFlow:
        """The flow runs, or nothing is enqueued. Each of its first nodes gets what is `given`, or each
        one of `inputs`. With `connection` it is part of that transaction. Raises InvalidInput, InvalidPayload, UnknownQueue.
        """
        return self._do(self._noun._start(flow, *given, inputs=inputs, connection=connection), connection)

    def list(
        self,
        *,
        state: FlowState | str | None = None,
        name: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[FlowStatus]:
        """Return flows, the newest first, `limit` at most; the next ones with `before`, the id of the last. Raises InvalidInput."""
        return self._do(self._noun.list(state=state, name=name, before=before, limit=limit))

    def get(self, flow_id: int) -> FlowStatus:
        """Return the flow. Raises FlowNotFound, InvalidInput."""
        return self._do(self._noun.get(flow_id))

    def nodes(self, flow_id: int, *, after: int = -1, limit: int = 1000) -> Sequence[FlowNode]:
        """Return its nodes in the order in which they were added; the next ones with `after`, the number of the last. Raises
        FlowNotFound, InvalidInput.
        """
        return self._do(self._noun.nodes(flow_id, after=after, limit=limit))

    def cancel(self, flow_id: int) -> FlowStatus:
        """Its nodes that wait are dead, and those that run are told to stop; when they have ended, it is cancelled. Return it.

        Raises FlowNotFound, InvalidInput, and WrongFlowState when it has ended.
        """
        return self._do(self._noun.cancel(flow_id))

    def retry(self, flow_id: int) -> FlowStatus:
        """It goes on from what failed: its dead nodes run again, with attempts counted from 0, and after them those that had waited
        for them. Nodes that are done stay so, and so do those that failed and that it can do without. Return it.

        Raises FlowNotFound, InvalidInput, and WrongFlowState when it is neither dead nor cancelled, or a job of its is gone.
        """
        return self._do(self._noun.retry(flow_id))

    def retry_all(self, *, name: str | None = None) -> RetriedFlows:
        """All dead flows, or those of this name, go on as `retry` says; return how many, and which could not.

        They go one by one: where this is stopped in the middle, call it again. Raises InvalidInput.
        """
        return self._do(self._noun.retry_all(name=name))

    def wait(
        self, flow: "int | StartedFlow", *, timeout: timedelta | float | None = None
    ) -> Mapping[str, Any]:
        """Return what its last nodes returned, by their names, once it is done; None where that could not be kept, as `forge.wait` does.
        An outage of the database is waited for.

        Raises FlowDead when it ends otherwise, WaitTimeout after `timeout` (seconds or timedelta), FlowNotFound, InvalidInput.
        """
        return self._do(self._noun.wait(flow, timeout=timeout))
