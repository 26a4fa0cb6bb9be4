"""Nodes of flows as they are stored: what a job is given at once, and what it gets when it begins."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from forge_jobs.codecs.encoded import Encoded
from forge_jobs.codecs.plain import encode
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.flow_types import inputs_of
from forge_jobs.model.flow import Edge, NewNode, OnDead, Role
from forge_jobs.model.time_limit import Limit
from forge_jobs.rules.words import count

if TYPE_CHECKING:
    from forge_jobs.handlers.flow import Node

OF_ITEMS = (Role.MAP, Role.FILTER_MAP, Role.FOLD)
"""Roles of nodes that get a list, and whose functions get its items."""


LIMITS = frozenset({"start_by", "deadline"})
"""Options that a node hands on to the jobs that it makes."""


def as_said(limit: Limit | None) -> float | datetime | None:
    """Return a time limit as the plan of a node has it."""
    return limit.total_seconds() if isinstance(limit, timedelta) else limit


def built(node: "Node", start: Sequence[Any] | None, places: "Mapping[Node, int]", *, feeds: bool) -> NewNode:
    """Return the node; `start` is what it is started with, None of one that depends on others; `feeds` says whether others get what
    it returns. Raises InvalidInput, InvalidPayload.
    """
    handler, plan = node.handler, replace(node.plan, feeds=feeds)
    if node.after and plan.collects is None:
        plan = replace(plan, into=(*plan.into, *inputs_of(node).values()))
    if plan.role is Role.BRANCH:
        begin = [one for one in node.flow.nodes if one.chooser is node]
        routes = {one.route: tuple(two.name for two in begin if two.route == one.route) for one in begin}
        plan = replace(plan, routes=routes)
    arguments = dict(node.arguments)
    if start is not None:
        wanted = [plan.item] if plan.role in OF_ITEMS else node.free()
        if len(start) > len(wanted):
            takes = ", ".join(str(name) for name in wanted) or "none"
            raise InvalidInput(
                f"Node {node.name!r} is started with {count(len(start), 'argument')}, allowed: {takes}."
            )
        arguments |= dict(zip(map(str, wanted), start, strict=False))
    payload: Any = arguments
    if start is None or plan.role in OF_ITEMS:  # more comes when it begins
        payload = Encoded(encode(arguments, handler.codec, of=handler.kind), handler.codec)
    job = handler.forge.job(handler.kind, payload, **node.options)
    if plan.role in (*OF_ITEMS, Role.REPEAT):
        plan = replace(plan, **{name: as_said(getattr(job, name)) for name in LIMITS & node.options.keys()})
    return NewNode(
        node.name,
        job,
        plan,
        tuple(Edge(places[before], node.edges.get(before, before.on_dead)) for before in node.after),
        delay=node.delay,
        tolerated=node.on_dead is not OnDead.FAIL,
    )
