"""Which jobs are meant, as a part of SQL: those of one kind, with one key and in one group."""

from collections.abc import Sequence

_FITS = """(({which})[1] IS NULL OR job.kind = ({which})[1]) AND (({which})[2] IS NULL OR job.key = ({which})[2])
       AND (({which})[3] IS NULL OR job.groups::jsonb -> ({which})[3] IS NOT NULL)"""

# Compared, not EXISTS: the planner would make that a hash of all jobs of the kind.
_OF_PLACE = "({which} IS NULL OR (SELECT {fits} FROM {schema}.job WHERE job.id = place.job_id))"


def fits(parameter: str) -> str:
    """Return whether a row of `job` is meant by this parameter of the statement, which is as `argument` makes it."""
    return f"({parameter}::text[] IS NULL OR {_FITS})".replace("{which}", f"{parameter}::text[]")


def place_fits(parameter: str, place: str = "place") -> str:
    """Return the same of a row that has the id of a job."""
    said = _OF_PLACE.replace("{fits}", _FITS).replace("{which}", f"{parameter}::text[]")
    return said.replace("place.job_id", f"{place}.job_id")


def argument(kind: str | None, key: str | None, group: str | None) -> Sequence[str | None] | None:
    """Return the argument of a statement that means these jobs; None: all."""
    which = [kind, key, group]
    return None if which == [None, None, None] else which
