"""What the jobs of nodes have besides what is said of them: of the one that adds them, or of their flow."""

from collections.abc import Sequence
from dataclasses import replace as replaced
from datetime import timedelta

from msgspec.structs import replace

from forge_jobs.model.flow import NewNode
from forge_jobs.model.group import Group, decoded, encoded


def allowed_of(node: NewNode) -> float | None:
    """Return for how many seconds after others have ended it may take, whatever its flow may; None: for as long as that may."""
    own = node.job.deadline
    return own.total_seconds() if node.after and isinstance(own, timedelta) else None


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
