"""Jobs that workers run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.job import (
    Claim,
    End,
    Postponement,
)
from forge_jobs.model.worker import Standing

Hint = tuple[int, int]
"""(priority, pos): where a look for jobs of this priority may begin."""

START: Hint = (-32768, -1)
"""Before all jobs of a queue."""

END: Hint = (32767, 2**63 - 1)
"""Behind all jobs of a queue."""


@dataclass(frozen=True, slots=True)
class Front:
    """Where the jobs of a queue begin, at one moment."""

    begins: Mapping[
        int, int | None
    ]  # by priority in use: the pos of its first job; None: it has none that is counted
    now: int  # the pos of a job that becomes ready at that moment


@dataclass(frozen=True, slots=True)
class AskedQueue:
    """One of several queues that a claim asks for jobs, and where it looks there, as `Claims.claim` says."""

    queue_id: int
    limit: int
    hint: Hint | None = None
    hints: Sequence[Hint] = ()
    late: timedelta = timedelta(0)


class Claims(Protocol):
    """Jobs that workers run."""

    reads_meta: (
        bool  # whether those that `claim` returns have their meta: once a worker with plugins wants it
    )

    async def claim(
        self,
        queue_id: int,
        worker_id: int,
        *,
        limit: int,
        in_hand: int = 0,
        hint: Hint | None = None,
        hints: Sequence[Hint] = (),
        late: timedelta = timedelta(0),
        without_kinds: Sequence[str] = (),
        without_pinned: bool = False,
        only_pinned: bool = False,
        standing: Standing | None = None,
    ) -> list[Claim]:
        """Take up to `limit` pending jobs of the queue, by priority, then oldest first.

        Nothing is taken when the queue is paused or cools down, or when the worker is not
        registered (any more). In a queue with a concurrency, no more are taken than the
        worker holds slots beyond the `in_hand` jobs of the queue that it has already.
        Jobs before `hint` are not seen, whatever their priority. Nor are jobs that stand before the hint of their
        priority in `hints`, unless they became ready within the last `late`; of a priority without a hint every
        job is seen. Jobs of `without_kinds` are passed over, and so are, if `without_pinned`, jobs that are pinned to another
        version than the worker's. If `only_pinned`, none but those that are pinned to its version are seen, wherever they stand,
        and its version may drain. Nothing is taken when `standing` does not fit this database any more, since its history was cut. A payload of more than LARGE_PAYLOAD bytes is left out, and that
        of a node of a flow which gets more than MOST_AT_CLAIM bytes, or results of more than MOST_INPUTS_AT_CLAIM
        nodes: `payload` reads it. A larger saved state is left out together with the payload. Steps
        that were done come along, up to MOST_STEPS_AT_CLAIM with results of MOST_RESULTS_AT_CLAIM bytes together; of more, none.
        """

    async def claim_from(
        self,
        queues: Sequence[AskedQueue],
        worker_id: int,
        *,
        limit: int,
        standing: Standing | None = None,
    ) -> list[Claim]:
        """Take up to `limit` pending jobs of these queues, of which no two are the same: from the first one as many as it is
        asked for, then from the next one, each as by `claim`. The claims come in this order.

        Queues behind the one that gave the last of `limit` jobs were not looked at. A queue with a concurrency gives nothing.
        """

    async def front(
        self, queue_id: int, *, without_kinds: Sequence[str] = (), without_pinned_of: int | None = None
    ) -> Front:
        """Return where the queue's pending jobs begin, those of `without_kinds` not counted, nor those that are pinned to another version than that of the worker `without_pinned_of`.

        To find that, the database passes everything that lies before them, also jobs that were claimed but
        that older transactions still see.
        """

    async def payload(self, claim: Claim) -> bytes | None:
        """Return the payload of a claimed job, which has its saved state then; None when the claim was lost."""

    async def answered(self) -> None:
        """Every outcome that this process was writing when this was called is written, or never will be."""

    async def finish(self, ends: Sequence[End]) -> list[int]:
        """The jobs are done or dead, all of them or none; return the ids of those whose claim was lost, for which nothing was written."""

    async def postpone(self, postponements: Sequence[Postponement]) -> list[int]:
        """The jobs wait again, or are ready when their wait is over already; return the ids of those whose claim was lost.

        A job that a user cancelled meanwhile is dead instead, and `cancel_requested` of its claim says so; one that
        lost its key is dead too, and `superseded` of its claim says so.
        """

    async def hand_back(self, claims: Sequence[Claim]) -> list[int]:
        """The jobs are ready again at their old places, the attempt not counted; return the ids of those whose claim was lost.

        A job that was cancelled or lost its key meanwhile is dead instead, as by `postpone`.
        """

    async def held(self, worker_id: int) -> list[Claim]:
        """Return every claim that the worker has by the database; it may find jobs there that it does not run.

        Payloads are left out; `cancel_requested` is filled in.
        """

    async def lost(self, *, epoch: LeaderEpoch, limit: int = 500) -> list[Claim]:
        """Return claims whose worker is not registered, for `finish` or `postpone` on its behalf.

        Payloads are left out; `cancel_requested` is filled in. None are returned when `epoch` no longer leads.
        """
