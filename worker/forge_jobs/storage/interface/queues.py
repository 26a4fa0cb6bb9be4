"""Queues and how they are configured."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.queue import QueueConfig


class Queues(Protocol):
    """The configuration of queues, and their cool-down.

    An operator names its epoch; PastEpoch is raised, and nothing written, when another
    operator has taken over since.
    """

    async def ensure(self, names: Sequence[str], *, epoch: OperatorEpoch | None = None) -> None:
        """Queues of these names exist; those that existed before keep their configuration."""

    async def set(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> QueueConfig:
        """The queue exists with `changes` (fields of QueueConfig.EDITABLE); workers are told.

        Whether there is a rate limit of the name `rate_limit` is not checked. Raises Managed when the row
        belongs to somebody other than `managed_by`.
        """

    async def manage(
        self, name: str, owner: str | None, *, previous: str | None = None, epoch: OperatorEpoch | None = None
    ) -> bool:
        """The row belongs to `owner` (None: to nobody); False when somebody other than `previous` owns it."""

    async def all(self, *, closed: bool = False) -> list[QueueConfig]:
        """Return all queues by name; those that are being deleted only with `closed`, see Removals."""

    async def end_pauses(self) -> tuple[Sequence[str], timedelta | None]:
        """No queue is paused whose pause was to end by now, and workers are told.

        Return the names of those that were, and how long it is until the next pause ends (None: none does).
        """

    async def cool_down(self, queue_id: int, delay: timedelta, throttles: int) -> None:
        """Nothing is claimed from the queue for `delay`, unless it cools down for longer already.

        `throttles` (how many in a row, this one included) is written with it; during a
        cool-down, neither is changed by shorter ones.
        """
