"""Which jobs are meant, as a part of SQL: those of one kind, with one key and in one group."""

FITS = """(:kind IS NULL OR job.kind = :kind) AND (:key IS NULL OR job.key = :key)
  AND (:group IS NULL OR EXISTS (SELECT 1 FROM json_each(job.groups) AS one WHERE one.key = :group))"""
"""Whether a row of `job` is meant."""

PLACE_FITS = (
    f"(coalesce(:kind, :key, :group) IS NULL OR (SELECT {FITS} FROM job WHERE job.id = place.job_id))"
)
"""The same of a row `place` that has the id of a job."""
