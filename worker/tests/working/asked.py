"""What a worker asks of the database when it looks for jobs."""

from collections.abc import Sequence
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.model.job import Claim
from forge_jobs.storage.interface.claims import AskedQueue


class Asked:
    """The claims so far: `alone`, the queue and how many jobs it gave; `together`, the queues, and for each job the one that gave it."""

    def __init__(self, forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alone: list[tuple[int, int]] = []
        self.together: list[tuple[list[int], list[int]]] = []
        claim, claim_from = forge.storage.claims.claim, forge.storage.claims.claim_from

        async def one(queue_id: int, *given: Any, **options: Any) -> list[Claim]:
            claims = await claim(queue_id, *given, **options)
            self.alone.append((queue_id, len(claims)))
            return claims

        async def several(queues: Sequence[AskedQueue], *given: Any, **options: Any) -> list[Claim]:
            claims = await claim_from(queues, *given, **options)
            self.together.append(([asked.queue_id for asked in queues], [one.queue_id for one in claims]))
            return claims

        monkeypatch.setattr(forge.storage.claims, "claim", one)
        monkeypatch.setattr(forge.storage.claims, "claim_from", several)

    @property
    def statements(self) -> int:
        return len(self.alone) + len(self.together)

    def queues_together(self) -> set[int]:
        return {queue_id for queues, _ in self.together for queue_id in queues}
