"""Flows: jobs that depend on each other."""

from collections.abc import Sequence
from typing import Any, Protocol

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.flow import FlowNode, FlowState, FlowStatus, NewFlow, Role


class Flows(Protocol):
    """The flows whose jobs are kept.

    What ends a node, whatever it is, also hands on to the nodes that wait for it, in the same transaction; but for what ends
    it in a transaction of a caller, after whose commit it is handed on.
    """

    async def start(self, flow: NewFlow, *, connection: Any = None) -> tuple[int, Sequence[int]]:
        """The flow runs: the jobs of nodes without predecessors wait for a worker, those of others for them. Return its id, and
        the ids of its jobs in the order of its nodes. Raises UnknownQueue. With `connection` it is a part of that transaction.
        """

    async def all(
        self,
        *,
        state: FlowState | None = None,
        name: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[FlowStatus]:
        """Return flows, the newest first; those with smaller ids than `before` only, where it is given."""

    async def get(self, flow_id: int) -> FlowStatus | None:
        """Return the flow; None: there is none."""

    async def of(self, job_id: int) -> int | None:
        """Return the id of the flow of which the job is a node; None: of none that is known."""

    async def role(self, job_id: int) -> Role | None:
        """Return what a worker does with the node whose job this is; None: it is of none that is known."""

    async def nodes(self, flow_id: int, *, after: int = -1, limit: int = 1000) -> Sequence[FlowNode]:
        """Return its nodes in the order in which they were added, those with greater numbers than `after`."""

    async def results(self, flow_id: int) -> Sequence[tuple[str, int, str, bytes | None]]:
        """Return (name, job id, codec, result) of its done nodes for which no other waited, in their order; of the one that answers for
        such a node in its place. The result is None where it was None, or could not be kept.
        """

    async def first_error(self, flow_id: int) -> tuple[str, str] | None:
        """Return the name and the error of a dead node: if there is one, of one that is not dead for want of another, nor one that the
        flow can do without. None: there is none.
        """

    async def cancel(self, flow_id: int, *, by: str | None = None) -> FlowState | None:
        """The flow ends: nodes that wait are dead, and workers are told of those that run. Return its state before; None:
        there is none. One that has ended stays as it is.
        """

    async def retry(self, flow_id: int, *, by: str | None = None) -> tuple[FlowState | None, int | None]:
        """The dead nodes that the flow cannot do without run again, and after them those that waited for them: all that are dead, or were
        skipped, for want of them.

        Return its state before (None: there is none), and a node whose job was deleted: then nothing was changed. Only a dead
        or a cancelled flow is changed.
        """

    async def audit(self, *, epoch: LeaderEpoch) -> int:
        """No node is open whose job has ended, and none waits for nothing, as after a worker that knows no flows; return
        how many there were. Nothing is changed when `epoch` no longer leads.
        """

    async def forget(self, *, epoch: LeaderEpoch, limit: int = 100) -> int:
        """Flows that have ended and of which no job is kept are forgotten, `limit` at most, unless `epoch` no longer leads; return
        how many.
        """
