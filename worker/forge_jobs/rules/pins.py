"""What a worker is told of pins with the jobs that it claims."""

from collections.abc import Iterable, Mapping

from forge_jobs.model.job import Claim
from forge_jobs.model.links import PINNED


def heed(claims: Mapping[int, Claim], pins: Iterable[tuple[int, str | None]]) -> None:
    """The claims, by job, of jobs that are linked to pins are as these pins say: to which other version each is, None: to that of its worker.

    One that ended and was retried has none any more.
    """
    elsewhere = dict(pins)
    for job_id, claim in claims.items():
        claim.pinned_to = elsewhere.get(job_id)
        if job_id not in elsewhere and claim.links is not None:
            claim.links = claim.links & ~PINNED or None
