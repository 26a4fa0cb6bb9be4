"""Interventions: what people have done by hand, to jobs and to what else there is."""

from collections.abc import Sequence

from forge_jobs.errors import InvalidInput
from forge_jobs.model.intervention import Intervention
from forge_jobs.rules import names
from forge_jobs.rules.checks import whole
from forge_jobs.storage.interface.storage import Storage

MOST_LISTED = 10_000
SUBJECTS = ("queue", "kind", "group", "worker", "flow", "operation", "cron", "limit", "tenant", "owner")


class Interventions:
    """What people have done, and who they were. Reached as `forge.interventions`; `forge.jobs.history` has those of one job."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self, *, subject: str | None = None, limit: int = 100) -> Sequence[Intervention]:
        """Return what was done, the newest first, `limit` at most.

        `subject` is to what, like "queue mail", "kind send_email", "group customer:42", "worker LABEL", "flow 7", "operation 7", "cron nightly",
        "limit slack", "tenant 42" or "owner NAME"; None: to whatever, jobs included. Raises InvalidInput.
        """
        if subject is not None and subject.partition(" ")[0] not in SUBJECTS:
            raise InvalidInput(
                f"subject is {names.shown(subject)}, allowed is one of {', '.join(SUBJECTS)}, a space and its name."
            )
        most = whole(limit, "limit", least=1, most=MOST_LISTED)
        return await self._storage.interventions.all(subject=subject, limit=most)
