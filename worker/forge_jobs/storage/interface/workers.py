"""Workers, and what they say of themselves."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.facts import SlotFacts
from forge_jobs.model.track_record import TrackRecord
from forge_jobs.model.worker import Beat, Beats, WorkerInfo

MOST_HOLDERS = 3
"""How many jobs of a worker `held_slots` names, those that have most slots."""


class Workers(Protocol):
    """Who is alive."""

    async def register(self, worker: WorkerInfo) -> None:
        """The worker is known and alive, and paused if the one that it follows was. Durable before it returns."""

    async def beat(
        self,
        worker_id: int,
        *,
        succeeded: int = 0,
        failed: int = 0,
        run_seconds: float = 0.0,
        era: int | None = None,
        record: TrackRecord | None = None,
        ailment: str | None = None,
    ) -> Beat:
        """The worker is alive as of now, its attempts came to this since it started, and it acknowledges its gate.

        With `era` it says that it has compared its claims with the database in that era, and runs no job whose claim
        is unknown there; None: it runs no job at all. An era begins when there is none. `record` is what the attempts
        came to in full, where more is known than two numbers; `ailment` is what keeps the worker from its work now
        (None: nothing). Raises WorkerLost when it was lost.
        """

    async def astray(self, worker_id: int, *, stuck: Sequence[int], adrift: Sequence[int]) -> None:
        """The worker has reported the jobs whose handlers are stuck, and those that it has claimed and does
        not run.
        """

    async def end_era(self) -> None:
        """Nobody's standing holds any more: each worker has to find out which of its claims the database knows."""

    async def drain(self, worker_id: int) -> None:
        """The worker has said of itself that it claims nothing new."""

    async def deregister(self, worker_id: int, *, record: TrackRecord | None = None) -> None:
        """The worker is gone, with its slots, its idle marks and its leadership.

        Its version keeps what its attempts came to: `record`, or None for what it said at its last beat.
        Jobs that it still holds are lost to it.
        """

    async def beats(self) -> Beats:
        """Return when each registered worker beat last."""

    async def declare_lost(self, silent: Mapping[int, datetime], *, epoch: LeaderEpoch) -> dict[int, str]:
        """Workers that beat last at these moments are not registered any more: they can claim nothing, their slots are free.

        Their versions keep what their attempts came to, and count those that they held as lost. Return their
        labels, by id. A worker that has beaten since stays, and all do when `epoch` no longer leads.
        """

    async def give_up(self, seen: Mapping[int, datetime], *, by: str | None = None) -> dict[int, str]:
        """Workers that beat last at these moments are not registered any more, as by `declare_lost`, whoever leads.

        A worker that has beaten since stays. Return the labels of those that are gone, by id. What is done `by` somebody is noted.
        """

    async def pause(self, worker_ids: Sequence[int], paused: bool, *, by: str | None = None) -> set[int]:
        """Those of the workers that no operator runs may claim nothing more, or may again when not `paused`; they are told.

        Return them. It holds for as long as the worker has this id.
        """

    async def all(self) -> list[WorkerInfo]:
        """Return the registered workers by label."""

    async def held_slots(self, job_id: int) -> SlotFacts:
        """Return how many slots the job takes, and who has those of each worker; of a job that a worker has claimed, only
        what it had claimed before. Raises JobNotFound.
        """

    async def handled(self) -> dict[str, frozenset[str]]:
        """Return, by queue, the kinds for which those who serve it have handlers.

        A queue is served by workers that may claim, and by versions that may, also by those that have no worker now.
        A queue is left out when it is not known: nobody serves it, or a version that is to serve it has
        had no worker yet, and may have any handler.
        """
