"""What a handler says of its job while it runs: how far it is, and what its next attempt is to know."""

import msgspec

from forge_jobs.model.job import Claim


class ProgressReport(msgspec.Struct, frozen=True, gc=False):
    """How far an attempt is, as its handler says."""

    claim: Claim
    share: float  # of the work, that is done: from 0 to 1
    note: str | None = None
