"""Extra slots: what a job of a heavy kind takes of its worker's concurrency besides the slot that every job has.

Each stands in the hand before its job, as if it were a job, and the runner that takes it out keeps it until the job is
over. So the job begins when all of its slots are there, what stands behind it waits, and other jobs pay nothing.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import final

from forge_jobs.model.job import Claim


@final
class ExtraSlot:
    """One slot of a heavy job, besides its own."""

    __slots__ = ("is_free", "is_kept", "job_id")

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        self.is_kept = False  # by a runner
        self.is_free: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class ExtraSlots:
    """Those of the jobs in one hand; `kinds` says of each heavy kind how many slots a job of it takes in all."""

    def __init__(self, kinds: Mapping[str, int]) -> None:
        self.kinds = kinds
        self.of: dict[int, list[ExtraSlot]] = {}  # by job
        self.kept = 0  # by runners

    def lined_up(self, claims: Sequence[Claim]) -> Sequence[Claim | ExtraSlot]:
        """Return the claims, each behind the extra slots of its job."""
        if self.kinds.keys().isdisjoint([claim.kind for claim in claims]):
            return claims
        line: list[Claim | ExtraSlot] = []
        for claim in claims:
            slots = [ExtraSlot(claim.job_id) for _ in range(self.kinds.get(claim.kind, 1) - 1)]
            if slots:
                self.of.setdefault(claim.job_id, []).extend(slots)
            line += [*slots, claim]
        return line

    def are_gathered(self, job_id: int) -> bool:
        """Whether runners keep slots for this job, which waits for the others."""
        return any(slot.is_kept for slot in self.of.get(job_id, ()))

    async def keep(self, slot: ExtraSlot, is_closing: Callable[[], bool]) -> None:
        """The slot is kept until its job is over, whoever cancels the runner meanwhile, but not when the worker is closing."""
        if slot.is_free.done():
            return
        slot.is_kept = True
        self.kept += 1
        while not slot.is_free.done():
            try:
                await asyncio.wait([slot.is_free])
            except asyncio.CancelledError:
                if is_closing():
                    raise

    def free(self, job_id: int) -> None:
        """The job is over, or in hand no more: its extra slots are for others."""
        for slot in self.of.pop(job_id, ()):
            self.kept -= slot.is_kept
            slot.is_free.set_result(None)
