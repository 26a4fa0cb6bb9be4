"""Tags in PostgreSQL: how they go to a statement, and how the jobs that have them are found."""

from collections.abc import Sequence

import msgspec

from forge_jobs.model.job import NewJob, State
from forge_jobs.storage.postgres.job_filter import fits

DECODED = "(SELECT array_agg(tag) FROM jsonb_array_elements_text(tags::jsonb) AS tag)"
"""The tags of one job of a batch, whose column `tags` is JSON; null: none."""


def encoded(jobs: Sequence[NewJob]) -> list[str | None]:
    """Return the tags of each job as an argument: a list of lists would have to be of one length."""
    return [msgspec.json.encode(job.tags).decode() if job.tags else None for job in jobs]


# Compared, not joined: the planner would make a join a hash of all jobs.
def _stands(table: str, condition: str = "true") -> str:
    return (
        f"(SELECT true FROM {{schema}}.{table} AS stands WHERE stands.job_id = place.job_id AND {condition})"
    )


_IN_STATE: dict[State | None, str] = {
    None: "true",
    State.PENDING: f"coalesce({', '.join(map(_stands, ('scheduled', 'blocked', 'waiting', 'claimed', 'finished')))}, false) = false",
    State.SCHEDULED: _stands("scheduled", "reason <> 'retry'"),
    State.RETRYING: _stands("scheduled", "reason = 'retry'"),
    State.BLOCKED: _stands("blocked"),
    State.WAITING: _stands("waiting"),
    State.IN_PROGRESS: _stands("claimed"),
    State.DONE: _stands("finished", "state = 'done'"),
    State.DEAD: _stands("finished", "state = 'dead'"),
    State.EXPIRED: _stands("finished", "state = 'expired'"),
}

_TAGGED = """{schema}.job_tag AS place
    WHERE place.tag = (SELECT {schema}.rarest({tags}::text[])) AND {in_state}
      AND (SELECT ({queue}::text IS NULL OR job.queue_id = (SELECT queue.id FROM {schema}.queue WHERE queue.name = {queue}))
                  AND {fits} AND job.tags @> {tags}
           FROM {schema}.job WHERE job.id = place.job_id)"""

PAGES: dict[State | None, str] = {
    state: (
        """
    SELECT place.job_id AS id, place.job_id AS rank, NULL::integer AS attempt
    FROM {tagged} AND place.job_id < $1
    ORDER BY place.job_id DESC LIMIT $4""".replace("{tagged}", _TAGGED)
        .replace("{in_state}", in_state)
        .replace("{queue}", "$2")
        .replace("{fits}", fits("$3"))
        .replace("{tags}", "$5")
    )
    for state, in_state in _IN_STATE.items()
}
"""By state, the ids of jobs of it that have all tags of $5: those below $1, of queue $2 that fit $3, at most $4."""

COUNT: dict[State, str] = {
    state: "SELECT count(*) FROM {tagged}".replace("{tagged}", _TAGGED)
    .replace(
        "{in_state}",
        _stands("claimed", "cancel_requested_at IS NULL") if state is State.IN_PROGRESS else in_state,
    )
    .replace("{queue}", "$1")
    .replace("{fits}", fits("$2"))
    .replace("{tags}", "$3")
    for state, in_state in _IN_STATE.items()
    if state is not None
}
"""By state, how many jobs of queue $1 that fit $2 have all tags of $3; of running ones those that are not cancelled."""

LOOK = """
SELECT 'tag', job_id, tag, NULL, NULL FROM {schema}.job_tag
WHERE {these} AND NOT EXISTS (SELECT FROM mine WHERE mine.id = job_tag.job_id AND job_tag.tag = ANY (mine.tags))
UNION ALL
SELECT 'tagless', mine.id, said.tag, NULL, NULL FROM mine CROSS JOIN LATERAL unnest(mine.tags) AS said (tag)
WHERE NOT EXISTS (SELECT FROM {schema}.job_tag WHERE job_tag.tag = said.tag AND job_tag.job_id = mine.id)
"""
"""The audit's look at tags, as two parts of its statement."""

MEND = """
WITH gone AS (
    DELETE FROM {schema}.job_tag
    WHERE job_id = ANY ($1) AND NOT EXISTS (
        SELECT FROM {schema}.job WHERE job.id = job_tag.job_id AND job_tag.tag = ANY (job.tags))
)
INSERT INTO {schema}.job_tag (tag, job_id)
SELECT unnest(tags), id FROM {schema}.job WHERE id = ANY ($1) ON CONFLICT DO NOTHING
"""
