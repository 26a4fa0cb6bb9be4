"""Nodes of flows whose jobs are like the one that adds them: an item of its list, or the same once more."""

from collections.abc import Sequence
from dataclasses import replace as replaced

from msgspec.structs import replace

from forge_jobs.model.flow import NewNode
from forge_jobs.model.group import Group, decoded, encoded


def made_like(
    nodes: Sequence[NewNode], groups: str | None, tenant: str | None, tags: Sequence[str] | None
) -> Sequence[NewNode]:
    """Return the nodes; the jobs of those that are `alike` have these groups, as they are stored, this tenant and these tags.

    The work of a job goes on in them: where a group has no place for them they wait, though it drops or prefers new jobs.
    """
    places = encoded(Group(group.name, group.limit) for group in decoded(groups).values())
    words = tuple(tags or ())
    return [
        replaced(node, job=replace(node.job, groups=places, tenant=tenant, tags=words))
        if node.alike
        else node
        for node in nodes
    ]
