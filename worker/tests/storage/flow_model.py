"""What a flow is, in a few lines of Python: what a database says of flows is compared with this."""

from dataclasses import dataclass, field

from forge_jobs.model.flow import NewNode, OnDead


@dataclass
class ModelNode:
    """A node; `state` is that of its job, or skipped."""

    tolerated: bool
    before: dict[int, OnDead] = field(default_factory=dict)  # by the ids of those that it waits for
    state: str = "blocked"
    is_for_want: bool = False  # it is dead since another one is
    is_led_past: bool = False  # a branch has not taken it
    is_told: bool = False  # to stop
    is_kept: bool = True  # its job was not deleted
    was_mended: bool = False  # it is dead, and its job was completed by hand since

    @property
    def has_ended(self) -> bool:
        """Whether nothing becomes of it any more."""
        return self.state in ("done", "dead", "skipped")


class ModelFlow:
    """A flow whose nodes are known by the ids of their jobs."""

    def __init__(self) -> None:
        self.nodes: dict[int, ModelNode] = {}
        self.is_cancelled = False

    def add(self, nodes: "list[NewNode] | tuple[NewNode, ...]", ids: list[int]) -> None:
        """These nodes, which have got these ids, are in the flow."""
        for node, job_id in zip(nodes, ids, strict=True):
            before = {ids[edge.index]: edge.on_dead for edge in node.after}
            self.nodes[job_id] = ModelNode(node.tolerated, before)
        self.settle()

    def settle(self) -> None:
        """Whatever waits for nothing any more goes on, is skipped, or is dead."""
        changed = True
        while changed:
            changed = False
            for node in self.nodes.values():
                if node.state == "blocked":
                    node.state, node.is_for_want = self._next(node)
                    changed = changed or node.state != "blocked"

    def _next(self, node: ModelNode) -> tuple[str, bool]:
        before = [(self.nodes[job_id].state, rule) for job_id, rule in node.before.items()]
        if ("dead", OnDead.FAIL) in before:
            return "dead", True
        if any(state not in ("done", "dead", "skipped") for state, _ in before):
            return "blocked", False
        leads = any(
            state == "done" or (state == "dead" and rule is OnDead.CONTINUE) for state, rule in before
        )
        is_led_to = not before or (leads and not node.is_led_past)
        return ("pending" if is_led_to else "skipped"), False

    def end(self, job_id: int, state: str, *, heir: int | None = None, past: list[int] | None = None) -> None:
        """The node has ended; those that waited for it wait for its heir, and it leads past some."""
        self.nodes[job_id].state = state
        for other in past or ():
            self.nodes[other].is_led_past = True
        if heir is not None:
            self.nodes[heir].tolerated |= self.nodes[job_id].tolerated
            for node in self.nodes.values():
                if job_id in node.before:
                    node.before[heir] = node.before.pop(job_id)
        self.settle()

    def cancel(self) -> None:
        """Nodes that wait are dead, and those that run are told to stop."""
        if self.state != "running":
            return
        self.is_cancelled = True
        for node in self.nodes.values():
            node.is_told = node.state == "in_progress"
            if node.state in ("blocked", "pending", "waiting"):
                node.state = "dead"

    def retry(self) -> None:
        """What failed runs again, and what is dead or was skipped for want of that."""
        if self.state not in ("dead", "cancelled"):
            return
        again = {
            job_id
            for job_id, node in self.nodes.items()
            if node.state == "dead" and (self.is_cancelled or not node.tolerated)
        }
        while more := {job_id for job_id, node in self.nodes.items() if self._wants(node, again)} - again:
            again |= more
        if not all(self.nodes[job_id].is_kept for job_id in again):
            return
        self.is_cancelled = False
        for job_id in again:
            node = self.nodes[job_id]
            node.state = "done" if node.was_mended else "blocked"
            node.is_for_want = node.is_told = node.was_mended = False
        self.settle()

    @staticmethod
    def _wants(node: ModelNode, again: set[int]) -> bool:
        if node.state == "skipped":
            return not node.is_led_past and not again.isdisjoint(node.before)
        fatal = {job_id for job_id, rule in node.before.items() if rule is OnDead.FAIL}
        return node.state == "dead" and node.is_for_want and not again.isdisjoint(fatal)

    @property
    def state(self) -> str:
        """The state of the flow."""
        if not all(node.has_ended for node in self.nodes.values()):
            return "running"
        if self.is_cancelled:
            return "cancelled"
        return (
            "dead"
            if any(one.state == "dead" and not one.tolerated for one in self.nodes.values())
            else "done"
        )

    @property
    def counts(self) -> tuple[int, ...]:
        """How many nodes there are, are done, are dead, and were skipped."""
        states = [node.state for node in self.nodes.values()]
        return (len(states), *(states.count(state) for state in ("done", "dead", "skipped")))
