"""`forge.sync.interventions`: what `forge.interventions` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Sequence

from forge_jobs.client.interventions import Interventions
from forge_jobs.model.intervention import Intervention
from forge_jobs.sync.noun import SyncNoun


class SyncInterventions(SyncNoun[Interventions]):
    """What people have done, and who they were. Reached as `forge.sync.interventions`; `forge.sync.jobs.history` has those of one job."""

    def list(self, *, subject: str | None = None, limit: int = 100) -> Sequence[Intervention]:
        """Return what was done, the newest first, `limit` at most.

        `subject` is to what, like "queue mail", "kind send_email", "group customer:42", "worker LABEL", "flow 7", "operation 7", "cron nightly",
        "limit slack", "tenant 42" or "owner NAME"; None: to whatever, jobs included. Raises InvalidInput.
        """
        return self._do(self._noun.list(subject=subject, limit=limit))
