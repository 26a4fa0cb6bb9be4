"""Flows, as a program declares them: jobs that depend on each other, as a chain or as any graph without a cycle.

`Flow` collects nodes; `build` makes them what is stored, and says in one sentence what is wrong with them.
"""

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Union

from msgspec.structs import replace

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers import flow_pictures
from forge_jobs.handlers.flow_nodes import built
from forge_jobs.handlers.flow_types import check_inputs, fed_by, named_as
from forge_jobs.handlers.handler import Handler, HandlerWithOptions
from forge_jobs.handlers.options import OptionValues
from forge_jobs.model.flow import MOST_NODES, NewFlow, NodePlan, OnDead, Role
from forge_jobs.model.moments import as_duration
from forge_jobs.rules.words import count

if TYPE_CHECKING:
    from forge_jobs.client.flows import StartedFlow

Step = Union[Handler[Any, Any], HandlerWithOptions[Any, Any], "Flow"]
NOT_FOR_NODES = ("key", "key_mode", "unique", "run_at", "delay", "connection")
"""Options of jobs that nodes cannot have: they begin when their flow says."""


class Node:
    """A node of a flow that is being declared."""

    def __init__(self, flow: "Flow", handler: Handler[Any, Any], options: OptionValues, name: str) -> None:
        self.flow, self.handler, self.options, self.name = flow, handler, options, name
        self.arguments: Mapping[str, Any] = {}
        self.plan = NodePlan()
        self.on_dead = OnDead.FAIL
        self.delay: timedelta | None = None
        self.after: list[Node] = []
        self.edges: dict[
            Node, OnDead
        ] = {}  # where it says itself what the death of one means on which it depends
        self.is_callback = False  # it gets nothing of those on which it depends
        self.chooser: Node | None = None  # the branch that leads to it
        self.route = ""  # the one of that branch which it begins
        # Of those on which it depends, the ends of routes: it gets what one of them returned that was not skipped.
        self.joint: tuple[Node, ...] = ()

    def depends_on(self, *nodes: "Node | Flow") -> "Node":
        """It begins when all of these have ended, and its function gets what they returned, in this order, as the first
        arguments that were not given. Raises InvalidInput. Returns the node.
        """
        before = set(self.after)  # there may be very many
        for node in _lasts(self, nodes):
            if node in before:
                raise InvalidInput(f"Node {self.name!r} depends on {node.name!r} twice, allowed is once.")
            before.add(node)
            self.after.append(node)
        return self

    def collects(self, *nodes: "Node | Flow") -> "Node":
        """As `depends_on`, but all that they returned is one argument: a list. Raises InvalidInput."""
        self.depends_on(*nodes)
        free = self.free()
        if not free:
            raise InvalidInput(
                f"Node {self.name!r} takes no argument for a list, allowed is a function that does."
            )
        self.plan = replace(self.plan, collects=free[0])
        return self

    def free(self) -> list[str]:
        """Return the names of the arguments of its function that are not given, in order."""
        return [name for name in self.handler.arguments.names if name not in self.arguments]

    def successors(self) -> "list[Node]":
        """Return the nodes that wait for it."""
        return [node for node in self.flow.nodes if self in node.after]

    def __repr__(self) -> str:
        return f"<Node {self.name!r} of {self.flow!r}>"


class Flow:
    """Jobs that depend on each other: each node is a job, whose function gets what those returned that it depends on.

    `deadline` (seconds or timedelta) is how long after the start all nodes have to have ended. Raises InvalidInput.
    """

    def __init__(self, name: str, *, deadline: timedelta | float | None = None) -> None:
        self.name = named_as(name, "A flow")
        self.deadline = as_duration(deadline, "deadline")
        self.nodes: list[Node] = []
        self._tail: list[Node] = []  # the last nodes of the chain
        self._pause: timedelta | None = None  # before its next one

    def node(
        self,
        step: Step,
        /,
        *,
        name: str | None = None,
        on_dead: OnDead | str = OnDead.FAIL,
        delay: timedelta | float | None = None,
        **arguments: Any,
    ) -> Node:
        """Add a node that does this, a handler, one with options, or a whole flow, and return it; `depends_on` says what for.

        `arguments` are given to the function as they are. `on_dead` is what happens to nodes that wait for it when it is dead:
        "fail" (they are dead, too), "skip" (they are skipped unless others lead to them) or "continue" (they get None).
        `delay` is how long it waits when those have ended on which it depends. Of a flow, the node is its last one, and its
        first nodes depend on what the node is said to depend on. Raises InvalidInput.
        """
        if isinstance(step, Flow):
            if _on_dead(on_dead) is not OnDead.FAIL:
                raise InvalidInput(
                    f"on_dead of the flow {step.name!r} is {on_dead!r}, allowed is to say it of its nodes."
                )
            return self._embedded(step, name, delay, arguments)
        node = self._new(step, name, on_dead, arguments)
        node.delay = as_duration(delay, "delay")
        return node

    def and_then(
        self, step: Step, /, *, name: str | None = None, on_dead: OnDead | str = OnDead.FAIL, **arguments: Any
    ) -> "Flow":
        """The next node of a chain, which gets what the one before it returned. Returns the flow."""
        return self._chained(self.node(step, name=name, on_dead=on_dead, **arguments))

    def delay_for(self, duration: timedelta | float) -> "Flow":
        """The next node of the chain begins so long (seconds or timedelta) after the one before it has ended."""
        self._pause = as_duration(duration, "delay_for")
        return self

    def map(
        self, step: Step, /, *, name: str | None = None, on_dead: OnDead | str = OnDead.FAIL, **arguments: Any
    ) -> "Flow":
        """Each item of the list that the node before returned becomes a job that gets it; what they returned is a list again.

        With `on_dead="continue"`, or "skip", the list has None for an item whose job is dead.
        """
        return self._mapped(Role.MAP, step, name, on_dead, arguments)

    def filter_map(
        self, step: Step, /, *, name: str | None = None, on_dead: OnDead | str = OnDead.FAIL, **arguments: Any
    ) -> "Flow":
        """As `map`, and the list has no None."""
        return self._mapped(Role.FILTER_MAP, step, name, on_dead, arguments)

    def fold(self, step: Step, /, initial: Any, *, name: str | None = None, **arguments: Any) -> "Flow":
        """Each item of the list that the node before returned becomes a job, one after the other, which gets what the one before
        it returned, at first `initial`, and its item. The last one's is what the next node gets; of no item, `initial`.
        """
        node = self._new(step, name, OnDead.FAIL, arguments)
        free = node.free()
        if len(free) < 2:
            raise InvalidInput(
                f"Node {node.name!r} folds with a function that takes {', '.join(free) or 'nothing'}, "
                "allowed is one that takes what was folded so far, and an item."
            )
        node.arguments = {**arguments, free[0]: initial}  # among them it is sealed where they are
        node.plan = replace(node.plan, role=Role.FOLD, into=(free[0],), item=free[1])
        return self._chained(node)

    def repeat(
        self,
        step: Step,
        /,
        *,
        every: timedelta | float = 0,
        most: int | None = None,
        name: str | None = None,
        **arguments: Any,
    ) -> "Flow":
        """A node that is done again, as another job, `every` so long, while its function returns None; after `most` times it is dead."""
        node = self._new(step, name, OnDead.FAIL, arguments)
        pause = as_duration(every, "every")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise InvalidInput(f"most is {most!r}, allowed is a whole number from 1.")
        seconds = 0.0 if pause is None else pause.total_seconds()
        node.plan = replace(node.plan, role=Role.REPEAT, every=seconds, most=most)
        return self._chained(node)

    def branch(
        self, step: Step, /, routes: Mapping[str, Step], *, name: str | None = None, **arguments: Any
    ) -> "Flow":
        """A node whose function says which of the `routes` is taken, by returning its name; the others are skipped.

        Each route is a handler, or a flow, that gets what the node before the branch returned. It is a node of its name, with
        that of the branch before it where the flow has such a node already. The next node of the chain gets what the route
        returned that was taken.
        """
        if not isinstance(routes, Mapping) or not routes:
            raise InvalidInput(f"routes is {routes!r}, allowed is a mapping of names to handlers or flows.")
        before = list(self._tail)
        if not before:
            raise InvalidInput("branch is the first of its chain, allowed is one behind another node.")
        chooser = self._new(step, name, OnDead.FAIL, arguments)
        chooser.plan = replace(chooser.plan, role=Role.BRANCH)
        self._chained(chooser)
        ends: list[Node] = []
        for route, taken in routes.items():
            is_named = any(one.name == route or one.name.startswith(f"{route}.") for one in self.nodes)
            own = f"{chooser.name}.{route}" if is_named else route
            if isinstance(taken, Flow):
                first, last = self._copied(taken, own, {})
                for node in first:
                    node.name = own if len(first) == 1 else node.name
            else:
                last = self._new(taken, own, OnDead.FAIL, {})
                first = [last]
            for node in first:
                node.after, node.chooser, node.route = [*before, chooser], chooser, route
                node.joint = chooser.joint
            ends.append(last)
        self._tail = ends
        return self

    def on_success(self, step: Step, /, *, name: str | None = None, **arguments: Any) -> "Flow":
        """This is done when all nodes are done, but for those that the flow can do without; else it is dead. Returns the flow."""
        return self._called_back(step, name, arguments, OnDead.FAIL)

    def on_complete(self, step: Step, /, *, name: str | None = None, **arguments: Any) -> "Flow":
        """This is done when all nodes have ended, whatever became of them: `ctx.flow.errors` says. Returns the flow."""
        return self._called_back(step, name, arguments, OnDead.CONTINUE)

    def validate(self) -> "Flow":
        """Raise InvalidInput when the flow cannot be started; else return it."""
        self._sorted()
        if self._pause is not None:
            raise InvalidInput(
                f"The flow {self.name!r} ends with delay_for, allowed is one before another node."
            )
        if not self.nodes:
            raise InvalidInput(f"The flow {self.name!r} has no nodes, allowed is at least one.")
        if len(self.nodes) > MOST_NODES:
            raise InvalidInput(
                f"The flow {self.name!r} has {len(self.nodes):,} nodes, allowed are {MOST_NODES:,}."
            )
        seen: set[str] = set()
        for node in self.nodes:
            if node.name in seen:
                raise InvalidInput(
                    f"The flow {self.name!r} has two nodes {node.name!r}, allowed are different names: name=..."
                )
            seen.add(node.name)
            check_inputs(node)
        return self

    def roots(self) -> list[Node]:
        """Return the nodes that depend on no other."""
        return [node for node in self.nodes if not node.after]

    def build(self, *given: Any, inputs: Sequence[Any] | None = None) -> NewFlow:
        """Return the flow as it is started with these: each first node gets what is `given`, or each one of `inputs` in order.

        Raises InvalidInput, and InvalidPayload when what they get does not fit their functions.
        """
        self.validate()
        roots = self.roots()
        if inputs is not None and given:
            raise InvalidInput("inputs and arguments are both given, allowed is one of them.")
        if inputs is not None and len(inputs) != len(roots):
            raise InvalidInput(
                f"The flow {self.name!r} has {count(len(roots), 'start node')} and got {count(len(inputs), 'input')}."
            )
        starts = {node: given if inputs is None else (inputs[number],) for number, node in enumerate(roots)}
        ordered = self._sorted()
        places = {node: number for number, node in enumerate(ordered)}
        feeding = {before for node in ordered for before in fed_by(node)}
        nodes = [built(node, starts.get(node), places, feeds=node in feeding) for node in ordered]
        return NewFlow(self.name, nodes, self.deadline)

    def start(
        self, *given: Any, inputs: Sequence[Any] | None = None, connection: Any = None
    ) -> "Coroutine[Any, Any, StartedFlow]":
        """The flow runs, or nothing is enqueued; to be awaited as `enqueue`. With `connection` it is part of that transaction.

        Raises as `build`, and UnknownQueue.
        """
        self.validate()
        return self.nodes[0].handler.forge.flows.start(self, *given, inputs=inputs, connection=connection)

    def to_mermaid(self) -> str:
        """Return the flow as a graph for Mermaid."""
        return flow_pictures.mermaid(self.nodes)

    def to_dot(self) -> str:
        """Return the flow as a graph for Graphviz."""
        return flow_pictures.dot(self.name, self.nodes)

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}>"

    def _new(
        self, step: Step, name: str | None, on_dead: OnDead | str, arguments: Mapping[str, Any], /
    ) -> Node:
        options: OptionValues = {}
        if isinstance(step, HandlerWithOptions):
            options, step = step.values, step.handler
        if not isinstance(step, Handler):
            raise InvalidInput(f"A node of {self.name!r} does {step!r}, allowed is a handler, or a flow.")
        if step.takes_items:
            raise InvalidInput(
                f"A node of {self.name!r} does {step.kind!r}, a batch handler; allowed is another one."
            )
        if refused := next((name for name in NOT_FOR_NODES if options.get(name) is not None), None):
            raise InvalidInput(f"{refused} is given to a node of {self.name!r}, allowed are other options.")
        if step.defaults.key is not None or step.defaults.unique is not None:
            raise InvalidInput(
                f"A node of {self.name!r} does {step.kind!r}, which is unique; allowed is another one."
            )
        node = Node(self, step, options, named_as(step.kind if name is None else name, "A node"))
        for argument in arguments:
            if not step.arguments.takes(argument):
                takes = ", ".join(step.arguments.names) or "nothing"
                raise InvalidInput(f"Node {node.name!r} is given {argument!r}, its function takes {takes}.")
        node.arguments = arguments
        node.on_dead = _on_dead(on_dead)
        self.nodes.append(node)
        return node

    def _chained(self, node: Node) -> "Flow":
        first, last = (node.first, node.last) if isinstance(node, EmbeddedFlow) else ([node], node)
        for one in first:
            one.after = [*self._tail, *one.after]
            one.joint = tuple(self._tail) if len(self._tail) > 1 else ()
            if self._pause is not None:
                one.delay = self._pause
        self._pause = None
        self._tail = [last]
        return self

    def _called_back(
        self, step: Step, name: str | None, arguments: Mapping[str, Any], rule: OnDead
    ) -> "Flow":
        node = self._new(step, name, OnDead.FAIL, arguments)
        node.is_callback = True
        node.after = [one for one in self.nodes if not one.is_callback]
        node.edges = {one: rule if one.on_dead is OnDead.FAIL else OnDead.CONTINUE for one in node.after}
        return self

    def _mapped(
        self, role: Role, step: Step, name: str | None, on_dead: OnDead | str, arguments: Mapping[str, Any]
    ) -> "Flow":
        node = self._new(step, name, OnDead.FAIL, arguments)
        free = node.free()
        if not free:
            raise InvalidInput(
                f"Node {node.name!r} takes no argument for an item, allowed is a function that does."
            )
        node.plan = replace(node.plan, role=role, item=free[0], on_dead=_on_dead(on_dead))
        return self._chained(node)

    def _embedded(
        self, flow: "Flow", name: str | None, delay: timedelta | float | None, arguments: Mapping[str, Any]
    ) -> "Node":
        if arguments:
            raise InvalidInput(
                f"A flow is given {next(iter(arguments))!r}, allowed are arguments of handlers only."
            )
        first, last = self._copied(flow, flow.name if name is None else name, {})
        pause = as_duration(delay, "delay")
        for node in first:
            node.delay = pause or node.delay
        return EmbeddedFlow(first, last)

    def _copied(self, flow: "Flow", prefix: str, copies: dict[Node, Node]) -> tuple[list[Node], Node]:
        """Add copies of the nodes of a flow; return those that depend on no other, and the last one."""
        flow.validate()
        if flow is self:
            raise InvalidInput(f"The flow {self.name!r} has itself as a node, allowed is another one.")
        if flow.deadline is not None:
            raise InvalidInput(
                f"The flow {flow.name!r}, a part of {self.name!r}, has a deadline, allowed is one of the whole."
            )
        needed = {before for node in flow.nodes for before in node.after}
        lasts = [node for node in flow.nodes if node not in needed]
        if len(lasts) != 1:
            raise InvalidInput(
                f"The flow {flow.name!r} ends in {len(lasts)} nodes, allowed is one of a flow that is a node."
            )
        for node in flow._sorted():
            copy = Node(self, node.handler, node.options, named_as(f"{prefix}.{node.name}", "A node"))
            copy.arguments, copy.plan, copy.on_dead, copy.delay = (
                node.arguments,
                node.plan,
                node.on_dead,
                node.delay,
            )
            copy.is_callback, copy.route = node.is_callback, node.route
            copy.joint = tuple(copies[before] for before in node.joint)
            copy.chooser = None if node.chooser is None else copies[node.chooser]
            copy.after = [copies[before] for before in node.after]
            copy.edges = {copies[before]: rule for before, rule in node.edges.items()}
            copies[node] = copy
            self.nodes.append(copy)
        return [copies[node] for node in flow.roots()], copies[lasts[0]]

    def _sorted(self) -> list[Node]:
        """Return the nodes, each behind those on which it depends. Raises InvalidInput when there is a cycle."""
        done: dict[Node, None] = {}
        for start in self.nodes:
            path: dict[Node, Iterator[Node]] = {start: iter(start.after)} if start not in done else {}
            while path:
                node, rest = next(reversed(path.items()))
                before = next((one for one in rest if one not in done), None)
                if before is None:
                    done[node] = None
                    del path[node]
                elif before in path:
                    names = [one.name for one in path]
                    cycle = names[names.index(before.name) :]
                    shown = " -> ".join([before.name, *reversed(cycle)])
                    raise InvalidInput(f"The flow {self.name!r} goes in a circle: {shown}.")
                else:
                    path[before] = iter(before.after)
        return list(done)


class EmbeddedFlow(Node):
    """A flow that is a node of another one, as its nodes: what it returns is what its last one does."""

    def __init__(self, first: Sequence[Node], last: Node) -> None:
        self.first, self.last = first, last
        self.flow, self.name = last.flow, last.name
        self.after = []

    def depends_on(self, *nodes: "Node | Flow") -> "Node":
        """Its first nodes depend on these. Raises InvalidInput."""
        for node in self.first:
            node.depends_on(*nodes)
        return self


def _lasts(node: Node, nodes: "Sequence[Node | Flow]") -> Iterator[Node]:
    for one in nodes:
        if isinstance(one, EmbeddedFlow):
            one = one.last
        if not isinstance(one, Node) or one.flow is not node.flow:
            raise InvalidInput(f"Node {node.name!r} depends on {one!r}, allowed are nodes of its flow.")
        yield one


def _on_dead(on_dead: object) -> OnDead:
    try:
        return OnDead(on_dead)  # type: ignore[arg-type]  # that is found out here
    except ValueError:
        raise InvalidInput(f"on_dead is {on_dead!r}, allowed is one of {', '.join(OnDead)}.") from None
