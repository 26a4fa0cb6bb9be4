"""A worker pod is deleted by force: others do its jobs."""

from collections import Counter
from collections.abc import Callable

from tests.e2e.cluster import Cluster
from tests.e2e.database import UNTIL_TOLD, Database
from tests.e2e.waiting import eventually


def test_the_jobs_of_a_worker_that_is_deleted_by_force_are_done_by_others(
    space: Cluster, database: Database, measure: Callable[[str, str], None]
) -> None:
    queue = space.queue("bereft", {"workers": {"replicas": 2, "slots": 5}})
    queue.serves("1", pods=2)
    jobs = database.enqueue("bereft", UNTIL_TOLD, 10)
    database.are_running(jobs, within=30)
    pods = Counter(line.pod for line in database.ledger(jobs))
    assert len(pods) == 2, "both pods run jobs"
    victim = next(iter(pods))
    orphans = {line.job_id for line in database.ledger(jobs) if line.pod == victim}

    def taken_up() -> bool:
        told = database.ledger(jobs)
        return {line.job_id for line in told if line.what == "started" and line.pod != victim} == set(jobs)

    space.kill(victim)
    database.let_end([job for job in jobs if job not in orphans])
    eventually(taken_up, within=150, what="others have taken up its jobs")
    database.let_end(jobs)
    database.are_done(jobs, within=60)
    told = database.ledger(jobs)
    ended = Counter(line.job_id for line in told if line.what == "ended")
    assert ended == Counter(jobs), "every job ended, and once"
    assert all(line.pod != victim for line in told if line.what == "ended" and line.job_id in orphans)
    again = [
        line for line in told if line.what == "started" and line.job_id in orphans and line.pod != victim
    ]
    assert {line.job_id for line in again} == orphans
    untouched = set(jobs) - orphans
    assert Counter(
        line.job_id for line in told if line.what == "started" and line.job_id in untouched
    ) == Counter(untouched)
    first_end = min(line.at for line in again) - max(
        line.at for line in told if line.what == "started" and line.pod == victim
    )
    measure(
        "a worker pod deleted by force: its jobs, taken up by others after",
        f"{len(orphans)}, {first_end.total_seconds():.1f} s",
    )
