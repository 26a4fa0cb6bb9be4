"""The tags of jobs in SQLite: a row each, so that the jobs that have one are found."""

from collections.abc import Iterable, Sequence

import msgspec

from forge_jobs.storage.sqlite.transaction import Transaction

RAREST = """
SELECT value FROM json_each(?) AS one
ORDER BY (SELECT count(*) FROM (SELECT 1 FROM job_tag WHERE job_tag.tag = one.value LIMIT 1000)) LIMIT 1
"""

HAS_ALL = "NOT EXISTS (SELECT 1 FROM json_each(:tags) AS one WHERE one.value NOT IN (SELECT value FROM json_each(job.tags)))"
"""Whether a row of `job` has all of these tags."""

ANY = "SELECT EXISTS (SELECT 1 FROM job_tag)"


def encoded(tags: Sequence[str]) -> str | None:
    """Return tags as a row of `job` has them."""
    return msgspec.json.encode(tags).decode() if tags else None


def decoded(text: str | None) -> tuple[str, ...]:
    """Return the tags of a row."""
    return () if text is None else tuple(msgspec.json.decode(text))


def add(transaction: Transaction, jobs: Iterable[tuple[int, Sequence[str]]]) -> None:
    """The jobs are found by their tags."""
    rows = [(tag, job_id) for job_id, tags in jobs for tag in tags]
    if rows:
        transaction.execute_many("INSERT INTO job_tag (tag, job_id) VALUES (?, ?)", rows)


def forget(transaction: Transaction, job_ids: Iterable[int]) -> None:
    """The jobs, which are still there, are not found by tags any more. Where no job has any, that is all that is looked at."""
    if not transaction.value(ANY):
        return
    transaction.execute_many(
        "DELETE FROM job_tag WHERE job_id = ?1 AND tag IN (SELECT value FROM job JOIN json_each(job.tags) WHERE job.id = ?1)",
        [(job_id,) for job_id in job_ids],
    )


def rarest(transaction: Transaction, tags: Sequence[str]) -> str:
    """Return which of the tags the fewest jobs have, counted up to 1,000: a look for jobs that have all of them begins there."""
    found: str = transaction.value(RAREST, (encoded(tags),))
    return found


LOOK = """
SELECT 'tag', job_id, tag, NULL, NULL FROM job_tag
WHERE {these} AND NOT EXISTS (SELECT 1 FROM job JOIN json_each(job.tags) AS one
                              WHERE job.id = job_tag.job_id AND one.value = job_tag.tag)
UNION ALL
SELECT 'tagless', job.id, one.value, NULL, NULL FROM job JOIN json_each(job.tags) AS one
WHERE job.id >= :first AND job.id < :end AND job.tags IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM job_tag WHERE job_tag.tag = one.value AND job_tag.job_id = job.id)
"""
"""The audit's look at tags, as two parts of its statement."""


def mend(transaction: Transaction, job_ids: Iterable[int]) -> None:
    """The jobs are found by their tags, and by no others."""
    ids = [(job_id,) for job_id in job_ids]
    transaction.execute_many(
        "DELETE FROM job_tag WHERE job_id = ?1 "
        "AND tag NOT IN (SELECT one.value FROM job JOIN json_each(job.tags) AS one WHERE job.id = ?1)",
        ids,
    )
    transaction.execute_many(
        "INSERT OR IGNORE INTO job_tag (tag, job_id) "
        "SELECT one.value, job.id FROM job JOIN json_each(job.tags) AS one WHERE job.id = ?",
        ids,
    )
