"""The counts of queues, as an audit of PostgreSQL sees and mends them."""

from forge_jobs.storage.closed_queues import SHOWN_NAME
from forge_jobs.storage.contradictions import COUNTED


def _columns(note: str = "{name}") -> str:
    return ", ".join(note.replace("{name}", name) for name in COUNTED)


def _counted(source: str, **columns: str) -> str:
    """Return the numbers of each queue in a table, 0 where none is given; first of what is there, then of what is noted."""
    names = [*COUNTED, *(f"noted_{name}" for name in COUNTED)]
    numbers = ", ".join(f"{columns.get(name, '0')} AS {name}" for name in names)
    return f"SELECT queue_id, {numbers} FROM {{schema}}.{source} GROUP BY queue_id"


_OF_TABLES = [
    *(
        _counted(table, **{name: "count(*)"})
        for name, table in (
            ("pending", "ready"),
            ("scheduled", "scheduled"),
            ("blocked", "blocked"),
            ("waiting", "waiting"),
            ("in_progress", "claimed"),
        )
    ),
    _counted(
        "finished",
        **{name: f"count(*) FILTER (WHERE state = '{name}')" for name in ("done", "dead", "expired")},
    ),
    _counted("tally", **{f"noted_{name}": f"coalesce(sum({name}), 0)" for name in COUNTED}),
]

_COUNTS = f"""
SELECT queue_id, {_columns("sum({name}) AS {name}")}, {_columns("sum(noted_{name}) AS noted_{name}")}
FROM ({" UNION ALL ".join(_OF_TABLES)}) AS counted
GROUP BY queue_id
HAVING ({_columns("sum({name})")}) <> ({_columns("sum(noted_{name})")})
"""

COUNTS = (
    (
        "SELECT {name}, counted.* FROM ({counts}) AS counted "
        "LEFT JOIN {schema}.queue ON queue.id = counted.queue_id ORDER BY queue_id"
    )
    .replace("{counts}", _COUNTS)
    .replace("{name}", SHOWN_NAME)
)

# Counts and rows are compared at one moment, and their difference is noted; later moves note their own changes.
MEND_COUNTS = (
    """
WITH wrong AS MATERIALIZED ({counts}), noted AS (
    INSERT INTO {schema}.tally (queue_id, {states})
    SELECT queue_id, {differences}
    FROM wrong
)
SELECT {name}, wrong.* FROM wrong LEFT JOIN {schema}.queue ON queue.id = wrong.queue_id ORDER BY queue_id
""".replace("{counts}", _COUNTS)
    .replace("{name}", SHOWN_NAME)
    .replace("{states}", _columns())
    .replace("{differences}", ", ".join(f"{name} - noted_{name}" for name in COUNTED))
)
