"""Held claims: which jobs the database says are this worker's, until their outcome is recorded.

A job that was given back with its attempt may come again under the same proof, while it is not known
whether the hand-back was written. The hand-back may be written again, and would take the
job away from a handler, so the second claim is given back too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from forge_jobs.model.job import Claim
from forge_jobs.rules.verdict import Verdict, handed_back
from forge_jobs.worker.attempt import Record
from forge_jobs.worker.served_queue import ServedQueue

Proof = tuple[int, int]
"""(job_id, attempt) of a claim of this worker."""


def proofs(claims: Iterable[Claim]) -> set[Proof]:
    """Return the proofs of these claims."""
    return {(claim.job_id, claim.attempt) for claim in claims}


class HeldClaims:
    """The claims of one worker; each of `queues` counts its own in `in_hand`."""

    def __init__(self, queues: Mapping[int, ServedQueue], record: Record) -> None:
        self._queues = queues
        self._record = record
        self._proofs: set[Proof] = set()
        self._again: Counter[Proof] = Counter()  # how often again each was claimed
        self._throttled: dict[Proof, ServedQueue] = {}

    def claimed(self, queue: ServedQueue, claims: Sequence[Claim]) -> Sequence[Claim]:
        """These jobs were claimed. Return the claims that were not held already; the others are handed back."""
        queue.in_hand += len(claims)
        claimed = [(claim.job_id, claim.attempt) for claim in claims]
        if self._proofs.isdisjoint(claimed):
            self._proofs.update(claimed)
            return claims
        new = []
        for claim, proof in zip(claims, claimed, strict=True):
            if proof in self._proofs:
                self._again[proof] += 1
                self._record(handed_back(claim, queue.config))
            else:
                self._proofs.add(proof)
                new.append(claim)
        return new

    def has(self, job_id: int) -> bool:
        """Whether the claim of an attempt of this job is held."""
        return any(held == job_id for held, _ in self._proofs)

    def regain(self, claim: Claim) -> None:
        """The claim, which was not known here, is held, to be handed back."""
        queue = self._queues.get(claim.queue_id)
        if queue is None:
            return
        if (claim.job_id, claim.attempt) not in self._proofs:
            self._proofs.add((claim.job_id, claim.attempt))
            queue.in_hand += 1
        self._record(handed_back(claim, queue.config))

    def throttled(self, claim: Claim, queue: ServedQueue) -> None:
        """A job of the queue was throttled: none is claimed until the database knows of it, which gives
        none while the queue cools down."""
        self._throttled[claim.job_id, claim.attempt] = queue
        queue.throttled += 1

    def recorded(self, verdicts: Sequence[Verdict]) -> list[ServedQueue]:
        """These claims are no longer held; return their queues."""
        claims = [verdict.run.claim for verdict in verdicts]
        if self._again or self._throttled:
            for claim in claims:
                self._let_go((claim.job_id, claim.attempt))
        else:
            self._proofs -= proofs(claims)
        queues = []
        for queue_id, count in Counter([claim.queue_id for claim in claims]).items():
            queue = self._queues[queue_id]
            queue.in_hand -= count
            queues.append(queue)
        return queues

    def _let_go(self, proof: Proof) -> None:
        if proof not in self._again:
            self._proofs.discard(proof)
        elif self._again[proof] > 1:
            self._again[proof] -= 1
        else:
            del self._again[proof]
        if throttled := self._throttled.pop(proof, None):
            throttled.throttled -= 1
