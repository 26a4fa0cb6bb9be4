"""The claims that workers hold in PostgreSQL, as statements: those of one worker, and those of workers that are gone."""

from forge_jobs.model.links import FAIR
from forge_jobs.storage.postgres.leadership import LEADS

HELD = """
SELECT job.id, claimed.worker_id, claimed.attempt, job.queue_id, job.kind, ''::bytea, job.codec, job.priority,
       {pos}, job.max_attempts, job.timeout, job.key, date_part('epoch', job.created_at), job.links,
       claimed.cancel_requested_at IS NOT NULL
FROM {schema}.claimed JOIN {schema}.job ON job.id BETWEEN claimed.job_id AND claimed.job_id
WHERE claimed.worker_id = $1
""".replace(
    "{pos}",  # the turn of a job that has a tenant has come
    f"""coalesce(
           CASE WHEN job.links & {FAIR} <> 0 THEN (
               SELECT max(clock.pos) FROM {{schema}}.tenant_clock AS clock
               WHERE clock.queue_id = job.queue_id AND clock.priority = job.priority) END,
           {{schema}}.micros(claimed.claimed_at))""",
)

LOST = HELD.replace(
    "WHERE claimed.worker_id = $1",
    "WHERE NOT EXISTS (SELECT FROM {schema}.worker WHERE worker.id = claimed.worker_id) AND {leads} LIMIT $1\n"
    # One that a transaction of its handler holds is passed over: its worker may be frozen in it.
    "FOR UPDATE OF claimed SKIP LOCKED",
).replace("{leads}", LEADS.replace("{epoch}", "$2"))
