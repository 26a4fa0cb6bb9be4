"""Which operator an object is for: two that watch the same namespace would undo each other's work, pod by pod.

The first that sees an object writes its name into the status, and keeps the object while it lives. Another one
leaves it alone and writes its own name beside that, as a question: an operator that lives takes that away again at
its next look at everything, and what nobody takes away for ten minutes was asked of one that is gone. Of several
that would, the one whose question stands asks for all: who wrote over it would keep it from ever being old enough.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from forge_operator.cluster.api import BY_KIND, Kube, Object
from forge_operator.cluster.errors import Conflict, NotFound
from forge_operator.cluster.events import EventRecorder, Subject
from forge_operator.cluster.lease import NotLeading
from forge_operator.loop.halt import OutOfDate
from forge_operator.state.keys import Key

logger = logging.getLogger("forge_operator")

PATIENCE = 600.0
"""Seconds after which an operator that does not answer is gone, and one that has answered is asked again."""

HOLDER, RIVAL = "operator", "rival"
"""Fields of the status: who manages the object, and who would."""


class Rivals:
    """Finds out which objects are for the operator `identity`, which is the namespace and the name of its Lease.

    `may_write` is asked before each write.
    """

    def __init__(
        self,
        kube: Kube,
        recorder: EventRecorder,
        identity: str,
        *,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube, self._recorder, self._identity = kube, recorder, identity
        self._may_write, self._clock = may_write, clock
        self._asked_at: dict[Key, float] = {}  # of objects of others
        self._asked_by: dict[Key, tuple[str, float]] = {}  # which third operator asks, since when

    async def ours(self, key: Key, found: Object) -> Object | None:
        """Return the object as it is, now that it is ours; None when it is another operator's.

        Raises OutOfDate, KubeError, NotLeading.
        """
        status = found.get("status") or {}
        holder, rival = status.get(HOLDER), status.get(RIVAL)
        if holder == self._identity and rival is None:
            self.forget(key)
            return found
        ours = {HOLDER: self._identity, RIVAL: None}
        if holder in (None, self._identity):
            return await self._written(key, found, ours)
        now, asked_at = self._clock(), self._asked_at.get(key)
        if rival == self._identity:  # it has not answered yet
            if now - self._asked_at.setdefault(key, now) < PATIENCE:
                return None
            taken = await self._written(key, found, ours)
            message = (
                f"Operator {holder} has not answered for ten minutes: {self._identity} manages it now. "
                f"If {holder} has a database of its own, jobs that wait there get no workers any more."
            )
            await self._say(key, found, "Warning", "TakenOver", message)
            return taken
        if rival is not None and self._may_hope(key, rival, now):
            return None
        if rival is not None or asked_at is None or now - asked_at >= PATIENCE:
            await self._written(key, found, {RIVAL: self._identity})
            self._asked_at[key] = now
            message = (
                f"Operator {holder} manages this object, so operator {self._identity} leaves it alone, "
                "unless that one does not answer for ten minutes."
            )
            await self._say(key, found, "Warning", "AnotherOperator", message)
        return None

    def forget(self, key: Key) -> None:
        """The object is ours, or gone."""
        self._asked_at.pop(key, None)
        self._asked_by.pop(key, None)

    def _may_hope(self, key: Key, rival: str, now: float) -> bool:
        """Whether the other operator that asks may still get the object; one that asks for too long is gone itself."""
        asks, since = self._asked_by.get(key, ("", now))
        if asks != rival:
            since = now
            self._asked_by[key] = rival, since
        return now - since < 2 * PATIENCE

    async def _written(self, key: Key, found: Object, status: dict[str, Any]) -> Object:
        if not self._may_write():
            raise NotLeading("This operator no longer holds the Lease, so nothing is written.")
        revision = found["metadata"]["resourceVersion"]
        try:
            return await self._kube.merge_status(
                BY_KIND[key.kind], key.namespace, key.name, status, revision=revision
            )
        except (Conflict, NotFound):
            raise OutOfDate("The object was changed meanwhile.") from None

    async def _say(self, key: Key, found: Object, type_: str, reason: str, message: str) -> None:
        logger.warning("%s: %s", key.owner, message)
        await self._recorder.record(subject_of(key, found), type_, reason, message)


def subject_of(key: Key, found: Object) -> Subject:
    """Return what an event about the object is about."""
    group_version = BY_KIND[key.kind].group_version
    return Subject(group_version, key.kind, key.namespace, key.name, found["metadata"]["uid"])
