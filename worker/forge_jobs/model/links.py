"""`links`: the bits of a job's row that say to what other rows it is linked. None, in place of 0, says that there are none.

A statement looks into other tables only for a job whose bit for them is set, so that a plain job pays nothing.
"""

GROUPS = 1
"""It has groups."""

LIMITED = 2
"""It has a time limit."""

REPORTED = 4
"""A handler has saved a state or a result, done a step, or reported progress."""

FAIR = 8
"""It has a tenant."""

FLOW = 32
"""It is a node of a flow."""

AWAITED = 64
"""Other jobs wait for its end."""

PINNED = 128
"""It goes on with one version of the program only."""


def is_pinned(links: int | None) -> bool:
    """Whether the `links` of a job say that it goes on with one version of the program only."""
    return links is not None and bool(links & PINNED)
