"""Which operator an object is for: two that watch the same namespace would undo each other's work, pod by pod.

The first that sees an object writes its name into the status, and keeps the object while it lives. Another one
leaves it alone and writes its own name beside that, as a question: an operator that lives takes that away again at
its next look at everything. What nobody takes away for two minutes, while the Deployment that the other's Lease is named
like is not there any more, was asked of one that is gone, if our database has the rows of the object. With another database, and
where Deployments may not be read, that takes ten minutes; of one whose Deployment is there nothing is taken. Of several
that would, the one whose question stands asks for all: who wrote over it would keep it from ever being old enough.
"""

import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from forge_operator.cluster.api import BY_KIND, Kube, Object
from forge_operator.cluster.errors import Conflict, Forbidden, NotFound
from forge_operator.cluster.events import EventRecorder, Subject
from forge_operator.cluster.lease import NotLeading
from forge_operator.loop.halt import OutOfDate
from forge_operator.state.keys import Key

logger = logging.getLogger("forge_operator")

PATIENCE = 600.0
"""Seconds after which an operator that does not answer is gone, as far as is known, and one that has answered is asked again."""

GONE_PATIENCE = 120.0
"""Seconds after which one that does not answer is looked for: its last pod may be stopping, or it may be installed in another way."""

LOOKED = 15.0
"""Seconds for which it is not looked for again."""

HOLDER, RIVAL = "operator", "rival"
"""Fields of the status: who manages the object, and who would."""


async def _unknown(key: Key) -> bool:
    return False


class Rivals:
    """Finds out which objects are for the operator `identity`, which is the namespace and the name of its Lease.

    `may_write` is asked before each write, and `knows` whether our database has rows that belong to an object.
    """

    def __init__(
        self,
        kube: Kube,
        recorder: EventRecorder,
        identity: str,
        *,
        may_write: Callable[[], bool] = lambda: True,
        knows: Callable[[Key], Awaitable[bool]] = _unknown,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._knows = knows
        self._kube, self._recorder, self._identity = kube, recorder, identity
        self._may_write, self._clock = may_write, clock
        self._asked_at: dict[Key, float] = {}  # of objects of others
        self._asked_by: dict[Key, tuple[str, float]] = {}  # which third operator asks, since when
        self._there: dict[
            str, tuple[float, bool | None]
        ] = {}  # when another one was looked for, and whether it is there

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
            return await self._followed(key, found, holder, now - self._asked_at.setdefault(key, now))
        if rival is not None and self._may_hope(key, rival, now):
            return None
        if rival is not None or asked_at is None or now - asked_at >= PATIENCE:
            await self._written(key, found, {RIVAL: self._identity})
            self._asked_at[key] = now
            message = (
                f"Operator {holder} manages this object, so operator {self._identity} leaves it alone, "
                "as long as that one is installed."
            )
            await self._say(key, found, "Warning", "AnotherOperator", message)
        return None

    async def _followed(self, key: Key, found: Object, holder: str, silent: float) -> Object | None:
        """Return the object, now that it is ours, if its operator, which has not answered for so many seconds, is gone."""
        if silent < GONE_PATIENCE:
            return None
        is_there = await self._is_there(holder)
        is_same = is_there is False and await self._knows(key)
        if silent < PATIENCE and not is_same:
            return None
        if is_there:
            self._asked_at[key] = self._clock()
            message = (
                f"Operator {holder} manages this object and has not answered for ten minutes. Its Deployment is there, "
                f"so operator {self._identity} leaves the object alone; it takes over when that one is uninstalled."
            )
            await self._say(key, found, "Warning", "AnotherOperator", message)
            return None
        taken = await self._written(key, found, {HOLDER: self._identity, RIVAL: None})
        why = "is not installed any more" if is_there is False else "has not answered for ten minutes"
        then = (
            "in the same database."
            if is_same
            else f"in its own database. If {holder} has another one, jobs that wait there get no workers any more."
        )
        message = f"Operator {holder} {why}: {self._identity} manages it now, {then}"
        await self._say(key, found, "Normal" if is_same else "Warning", "TakenOver", message)
        return taken

    async def _is_there(self, holder: str) -> bool | None:
        """Whether the other operator is installed, as the chart does it; None where that may not be read."""
        namespace, _, name = holder.partition("/")
        if not namespace or not name:
            return None
        looked_at, is_there = self._there.get(holder, (-math.inf, None))
        if self._clock() - looked_at >= LOOKED:
            try:
                is_there = await self._kube.has_deployment(namespace, name)
            except Forbidden:
                is_there = None
            self._there[holder] = self._clock(), is_there
        return is_there

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
