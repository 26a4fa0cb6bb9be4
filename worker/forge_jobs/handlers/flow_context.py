"""What a handler sees of the flow of which its job is a node: `ctx.flow`."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from forge_jobs.codecs.bound import result_of
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.flow import Flow, Node, Step
from forge_jobs.handlers.received import received
from forge_jobs.model.flow import MOST_NODES, ClaimedNode, NodeState, OnDead, Role
from forge_jobs.rules.words import first_line


class ContextFlow:
    """The flow of a job, as its handler sees it."""

    def __init__(self, node: ClaimedNode) -> None:
        self._node = node
        self.added: Flow | None = None  # what it has added
        self.answer: Node | None = None  # of that, the one whose result is that of this node
        self._is_completed = False  # by ctx.complete

    @property
    def id(self) -> int:
        """The id of the flow."""
        return self._node.flow_id

    @property
    def name(self) -> str:
        """The name of the flow."""
        return self._node.flow

    @property
    def node(self) -> str:
        """The name of this node."""
        return self._node.name

    @property
    def iteration(self) -> int:
        """How often a node that is repeated has been done with this time: from 1 on."""
        return self._node.plan.iteration

    @property
    def results(self) -> Mapping[str, Any]:
        """What those returned that are done of the nodes on which this one depends, by their names."""
        return {
            one.name: received(one.result, one.codec, "result", of=result_of(one.job_id))
            for one in self._node.inputs
            if one.state is NodeState.DONE
        }

    @property
    def errors(self) -> Mapping[str, str]:
        """The errors of those that are dead of the nodes on which this one depends, each as one line, by their names."""
        return {
            one.name: first_line(one.error or "") for one in self._node.inputs if one.state is NodeState.DEAD
        }

    def add(
        self,
        step: Step,
        /,
        *,
        name: str | None = None,
        on_dead: OnDead | str = OnDead.FAIL,
        delay: timedelta | float | None = None,
        is_answer: bool = False,
        **arguments: Any,
    ) -> Node:
        """Add a node to the flow, a handler or a whole flow, and return it; it may depend on others that are added here.

        It is there once this node is done, in the same transaction, and never when this attempt fails. With `is_answer` what
        waits for this node waits for it instead, and gets what it returns; when it is dead, that means what `on_dead` of this node
        says. Raises InvalidInput.
        """
        if self._is_completed:
            raise InvalidInput(
                f"Node {self.node!r} adds a node after ctx.complete, allowed is one that ends when its function does."
            )
        if self.added is None:
            self.added = Flow(self.name)
        node = self.added.node(
            step, name=f"{self._node.name}.{_name(step, name)}", on_dead=on_dead, delay=delay, **arguments
        )
        if len(self.added.nodes) > MOST_NODES:
            raise InvalidInput(f"A node adds {len(self.added.nodes):,} nodes, allowed are {MOST_NODES:,}.")
        if is_answer:
            if self.answer is not None:
                raise InvalidInput("is_answer is said of two nodes, allowed is one.")
            self.answer = getattr(node, "last", node)
            if self.answer.on_dead is not OnDead.FAIL:
                raise InvalidInput(
                    f"on_dead of {self.answer.name!r}, the answer of {self.node!r}, is {self.answer.on_dead.value!r}, "
                    "allowed is to say it of the node that is answered for."
                )
        return node

    def require_plain(self) -> None:
        """The job ends by ctx.complete. Raise InvalidInput when its end changes its flow, which only its worker can do."""
        role = self._node.plan.role
        if role is not Role.CALL:
            raise InvalidInput(
                f"Node {self.node!r} has the role {role.value}, allowed is ctx.complete in nodes that only do something."
            )
        if self.added is not None:
            raise InvalidInput(
                f"Node {self.node!r} has added nodes, allowed is ctx.complete where it has not."
            )
        self._is_completed = True


def _name(step: Any, name: str | None) -> str:
    if name is not None:
        return name
    return str(
        getattr(step, "kind", None) or getattr(getattr(step, "handler", None), "kind", None) or step.name
    )
