"""What a flow is: jobs that depend on each other. Each of its nodes is one job."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from forge_jobs.model.links import FLOW

if TYPE_CHECKING:
    from forge_jobs.model.job import NewJob

MOST_NODES = 100_000
"""How many nodes a flow may have when it starts, and how many a node may add at once."""

MOST_INPUTS_AT_CLAIM, MOST_AT_CLAIM = 64, 4096
"""Of how many predecessors, and how many bytes, a node gets results with its claim; more is read when it begins."""

LONGEST_NAME = 128
"""The most characters of the name of a flow, or of a node."""


def is_node(links: int | None) -> bool:
    """Whether a job with these `links` is a node of a flow."""
    return links is not None and bool(links & FLOW)


class FlowState(StrEnum):
    """How a flow is."""

    RUNNING = "running"  # a node has not ended
    DONE = "done"
    DEAD = "dead"  # all nodes have ended, and one is dead that it cannot do without
    CANCELLED = "cancelled"


class NodeState(StrEnum):
    """How a node has ended."""

    DONE = "done"
    DEAD = "dead"
    SKIPPED = "skipped"  # nothing led to it, so that it did not run


class OnDead(StrEnum):
    """What a dead node means for those that wait for it."""

    FAIL = "fail"  # they are dead as well
    SKIP = "skip"  # it leads to none of them: one that nothing else leads to is skipped
    CONTINUE = "continue"  # they run, and get None from it


class Role(StrEnum):
    """What a worker does with a node."""

    CALL = "call"  # its handler is called
    MAP = "map"  # each item of what it gets becomes a node that calls the handler; they are collected
    FILTER_MAP = "filter_map"  # the same, and what is None is left out
    COLLECT = "collect"  # what its predecessors returned is a list
    GATHER = "gather"  # the same without None
    FOLD = "fold"  # each item becomes a node that gets the result of the one before
    REPEAT = "repeat"  # its handler is called, and again in another node while it returns None
    BRANCH = "branch"  # its handler is called, and says which nodes it leads to


class NodePlan(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a worker does with a node, stored with it."""

    role: Role = Role.CALL
    into: tuple[
        str, ...
    ] = ()  # the parameters that get what its predecessors returned, of FOLD behind the one that gets what was folded so far
    collects: str | None = None  # the parameter that gets all of it, as a list
    item: str | None = None  # of MAP and FOLD: the parameter that gets the item
    on_dead: OnDead = OnDead.FAIL  # of MAP: what a dead item means
    iteration: int = 1  # of REPEAT: how often it is called with this one
    most: int | None = None  # of REPEAT: how often it is called at most; None: no limit
    every: float = 0.0  # of REPEAT: seconds between two calls
    start_by: float | datetime | None = (
        None  # of MAP, FOLD and REPEAT: the time limits of each job that it makes, where they are those
    )
    deadline: float | datetime | None = None  # of the node and not of its handler: a moment, or seconds
    number: int = 0  # of nodes that others made: which one it is
    feeds: bool = True  # others get what it returns, so that it is dead where that cannot be kept
    routes: dict[
        str, tuple[str, ...]
    ] = {}  # of BRANCH: the names of the nodes that each of its routes begins with


CALLED = NodePlan()
"""Of a node that depends on no other."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A predecessor: the `index` of a node that is added together with this one."""

    index: int
    on_dead: OnDead = OnDead.FAIL


@dataclass(frozen=True, slots=True)
class NewNode:
    """A node to be added."""

    name: str
    job: "NewJob"  # with `is_node`
    plan: NodePlan = CALLED
    after: tuple[Edge, ...] = ()
    delay: timedelta | None = None  # how long it waits when its predecessors have ended
    tolerated: bool = False  # the flow can do without it
    alike: bool = False  # its job has the groups, the tenant and the tags of the one that adds it


@dataclass(frozen=True, slots=True)
class NewFlow:
    """A flow to be started."""

    name: str
    nodes: Sequence[NewNode]
    deadline: timedelta | None = None  # within which all nodes have to have ended


@dataclass(frozen=True, slots=True)
class FlowChanges:
    """How the end of a node changes its flow, in the same transaction."""

    nodes: Sequence[NewNode] = ()  # that are added
    successor: int | None = None  # the one of these for which those wait that waited for the node
    taken: tuple[str, ...] | None = None  # the names of those that it leads to; None: all


class Input(msgspec.Struct, frozen=True, gc=False):
    """What a node gets of one of its predecessors."""

    name: str
    job_id: int
    state: NodeState
    codec: str
    result: bytes | None
    error: str | None


class ClaimedNode(msgspec.Struct, frozen=True, gc=False):
    """What a worker knows of the node whose job it has."""

    flow_id: int
    flow: str
    name: str
    plan: NodePlan
    inputs: Sequence[Input] = ()
    successors: Sequence[str] = ()  # names of the nodes that wait for it; only of a branch


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """A flow as its row says."""

    id: int
    name: str
    state: FlowState
    created_at: datetime
    nodes: int  # how many there are, those included that were added while it ran
    done: int
    dead: int
    skipped: int
    deadline: datetime | None = None
    cancel_requested_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def left(self) -> int:
        """How many nodes have not ended."""
        return self.nodes - self.done - self.dead - self.skipped


@dataclass(frozen=True, slots=True)
class FlowNode:
    """A node as people see it."""

    job_id: int
    number: int
    name: str
    state: str  # of its job, or `skipped`
    waits_for: int = 0  # how many of its predecessors have not ended
    after: tuple[int, ...] = ()  # the jobs of its predecessors
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FlowNeeds:
    """For what a blocked node waits."""

    flow_id: int
    job_id: int  # one of its predecessors that have not ended
    name: str
    others: int  # how many more have not


def encoded(plan: NodePlan) -> str:
    """Return a plan as it is stored."""
    return msgspec.json.encode(plan).decode()


def decoded(plan: str) -> NodePlan:
    """Return a plan as it was stored."""
    return msgspec.json.decode(plan, type=NodePlan)
