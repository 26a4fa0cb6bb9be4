"""The audit: what the database says is this worker's, compared with what is in its hand.

No claim is on the wire meanwhile, or its jobs would be taken for lost: the claimer calls.
"""

import time
from collections.abc import Callable

from forge_jobs.model.chore import Chore
from forge_jobs.model.job import NOBODY, Claim
from forge_jobs.storage.interface.claims import Claims
from forge_jobs.telemetry.events import ClaimsAdrift, HistoryCut
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.eras import Eras
from forge_jobs.worker.hand import Hand
from forge_jobs.worker.held import HeldClaims, Proof, proofs
from forge_jobs.worker.recorder import Recorder
from forge_jobs.worker.runners import Runners

AUDIT_EVERY = 5.0  # seconds between looks at what the database says is ours
AUDIT_AGAIN = 0.5  # ... until the second look, when a job is in no hand
PASSED_OVER = 1.0  # ... that would have found nothing, until it is seen whether another one might
AUDIT_SHARE = 100  # ... or this many times what the last look took


class ClaimAudit:
    """Of one worker's claims. Moments are monotonic seconds."""

    def __init__(
        self,
        claims: Claims,
        telemetry: Telemetry,
        worker_id: int,
        hand: Hand,
        held: HeldClaims,
        runners: Runners,
        recorder: Recorder,
        eras: Eras,
        is_idle: Callable[[Chore], bool] = lambda chore: False,
    ) -> None:
        self.at = time.monotonic() + AUDIT_EVERY  # when the next one is due
        self._claims = claims
        self._telemetry = telemetry
        self._worker_id = worker_id
        self._hand = hand
        self._held = held
        self._runners = runners
        self._recorder = recorder
        self._eras = eras
        self._is_idle = is_idle  # by what this process has seen just now, if it leads
        self._is_hurried = False
        self._adrift: set[Proof] = set()  # ours by the last look, and in no hand
        self._unknown: set[Proof] = set()  # in a hand of ours, but not ours by the last look
        self._unknown_at_beat = 0  # how many beats had been heard when the first of them was seen

    @property
    def adrift(self) -> frozenset[int]:
        """Jobs that are ours by the last look at the database, and in no hand of ours."""
        return frozenset(job_id for job_id, _ in self._adrift)

    def hurry(self) -> None:
        """The next audit is due at once, whatever was seen before."""
        self.at = 0.0
        self._is_hurried = True

    async def run(self) -> None:
        """Jobs that two looks find to be ours and in no hand are handed back; claims of jobs that run here
        and that two looks do not find are doubted. Two looks, since the first may have been on its way
        while an outcome was written. There is none while nobody has a claim and nothing is in hand here.
        """
        began = time.monotonic()
        if self._finds_nothing():
            self.at = began + PASSED_OVER
            return
        self._is_hurried = False
        self.at = began + AUDIT_EVERY
        run = proofs(self._hand.claims())
        held = {(claim.job_id, claim.attempt): claim for claim in await self._claims.held(self._worker_id)}
        adrift = held.keys() - proofs(self._in_hand())
        again = self._adrift & adrift
        self._adrift = adrift - again
        if again:
            self._telemetry.emit(ClaimsAdrift(sorted(job_id for job_id, _ in again)))
            for proof in again:
                self._held.regain(held[proof])
        # A job that still runs has no outcome that could have been written, but by its handler.
        completed = self._hand.completed()
        running = {proof for proof in proofs(self._hand.claims()) if proof[0] not in completed}
        self._doubt_unknown((run & running) - held.keys())
        now = time.monotonic()
        self.at = now + (
            AUDIT_AGAIN if self._adrift or self._unknown else max(AUDIT_EVERY, AUDIT_SHARE * (now - began))
        )

    def _finds_nothing(self) -> bool:
        return self._is_idle(Chore.CLAIMS) and not (
            self._is_hurried or self._adrift or self._unknown or self._in_hand()
        )

    async def take_stock(self) -> None:
        """The history was cut: jobs in hand here whose claim the database does not know are given up.

        An outcome of such a job proves nothing any more: a new job may have got its id.
        """
        doubts = self._eras.doubts
        held = await self._claims.held(self._worker_id)
        known = proofs(held)
        unknown = [claim for claim in self._in_hand() if (claim.job_id, claim.attempt) not in known]
        for claim in unknown:
            claim.worker_id = NOBODY
        await self._runners.stop_disowned()
        await self._claims.answered()
        self._telemetry.emit(HistoryCut(sorted({claim.job_id for claim in unknown}), len(known)))
        await self._eras.stock_was_taken(doubts)

    def _doubt_unknown(self, unknown: set[Proof]) -> None:
        """The database does not know these claims of jobs that run here. If two looks say so, its history
        was cut; unless the worker was lost, which the beat between them shows.
        """
        if not unknown & self._unknown:
            self._unknown_at_beat = self._eras.beats
        elif self._eras.beats > self._unknown_at_beat:
            self._eras.doubt()
            unknown = set()
        self._unknown = unknown
        if unknown:
            self._eras.hurry()

    def _in_hand(self) -> list[Claim]:
        """Return the claims of all jobs that are in a hand of ours, until their outcome is recorded."""
        return self._hand.claims() + self._recorder.claims()
