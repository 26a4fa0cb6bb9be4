"""Which of the jobs that a look has claimed are for this worker; the others are handed back, and left to others for a while."""

import time
from collections import Counter
from collections.abc import Sequence

from forge_jobs.handlers.handler import Handlers
from forge_jobs.model.job import Claim
from forge_jobs.rules.verdict import handed_back
from forge_jobs.telemetry.events import PinnedElsewhere, UnknownKind
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.hints import Outing
from forge_jobs.worker.recorder import Recorder
from forge_jobs.worker.served_queue import ServedQueue

LEFT_ALONE = 30.0  # seconds that jobs which are not for this worker are left to others


class Fitting:
    """Of one worker, which has these handlers."""

    def __init__(self, telemetry: Telemetry, handlers: Handlers, recorder: Recorder) -> None:
        self._telemetry = telemetry
        self._handlers = handlers
        self._recorder = recorder

    def of(self, queue: ServedQueue, look: Outing, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Return those that the worker may begin: this program has handlers for their kinds, which are not paused, and no
        other version of it has begun them.
        """
        paused = queue.paused_kinds
        if paused:  # some may have been on their way while they were paused
            claims = self._without(queue, claims, [claim for claim in claims if claim.kind in paused])
        elsewhere = [claim for claim in claims if claim.pinned_to is not None]
        unknown = [claim for claim in claims if claim.kind not in self._handlers and claim.pinned_to is None]
        if not elsewhere and not unknown:
            return claims
        until = time.monotonic() + LEFT_ALONE
        for kind, jobs in Counter(claim.kind for claim in unknown).items():
            queue.left_alone[kind] = until
            self._telemetry.emit(UnknownKind(queue.name, kind, jobs))
        for version, jobs in Counter(claim.pinned_to or "" for claim in elsewhere).items():
            queue.pinned_alone_until = until
            self._telemetry.emit(PinnedElsewhere(queue.name, version, jobs))
        queue.hints.leave_alone(look)
        return self._without(queue, claims, [*unknown, *elsewhere])

    def _without(self, queue: ServedQueue, claims: Sequence[Claim], others: Sequence[Claim]) -> list[Claim]:
        for claim in others:
            self._recorder.add(handed_back(claim, queue.config))
        gone = {claim.job_id for claim in others}
        return [claim for claim in claims if claim.job_id not in gone]
