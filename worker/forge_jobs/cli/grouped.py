"""The options that say the group of jobs that a command makes."""

from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.options import Option
from forge_jobs.errors import InvalidInput
from forge_jobs.model.group import MOST_PLACES, Group, Overflow

GroupLimit = Annotated[
    int | None,
    Option(
        metavar="N",
        help="How many jobs of the group may be pending or in progress at once.",
        parser=values.whole("--group-limit", least=1, most=MOST_PLACES),
    ),
]
WhenFull = Annotated[
    str | None,
    Option(metavar="|".join(Overflow), help="What happens when the group has no place. [default: wait]"),
]


def said(name: str | None, limit: int | None, overflow: str | None) -> Group | tuple[()] | None:
    """Return the group that --group, --group-limit and --overflow say, () for no group; None: they are not given.

    Raises InvalidInput.
    """
    if name:
        return Group(name, limit, overflow or Overflow.WAIT)
    if limit is not None or overflow is not None:
        given = "is not" if name is None else "is ''"
        raise InvalidInput(f"--group-limit or --overflow is given and --group {given}, allowed is both.")
    return None if name is None else ()
