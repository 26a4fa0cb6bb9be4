"""Events of Kubernetes about our objects: a repeated one is counted, not written again each time."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from forge_operator.cluster.api import EVENTS, Kube, Object
from forge_operator.cluster.errors import KubeError, NotFound

SAME_FOR = 300.0
"""Seconds within which an event with the same message is only counted."""

FORGOTTEN_AFTER = 3000.0
"""Seconds after which an event is written anew: the API server keeps events for an hour."""

MOST_OF_A_REASON = 20
"""Events of one reason about one object within SAME_FOR; more are left out."""

LONGEST_MESSAGE = 1024
COMPONENT = "forge-jobs-operator"


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(slots=True)
class _Written:
    name: str
    first: str
    count: int
    written_at: float


class EventRecorder:
    """Writes events; `failed` is called when that fails, and nothing else stops."""

    def __init__(
        self,
        kube: Kube,
        identity: str,
        *,
        failed: Callable[[KubeError], None] = lambda error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube, self._identity, self._failed, self._clock = kube, identity, failed, clock
        self._written: dict[tuple[str, str, str], _Written] = {}  # uid, reason, message

    async def record(self, subject: Subject, type_: str, reason: str, message: str) -> None:
        """The event exists, once in SAME_FOR for each message, with a count."""
        message = message[:LONGEST_MESSAGE]
        key, now = (subject.uid, reason, message), self._clock()
        self._forget(now)
        event = self._written.get(key)
        try:
            if event is None:
                if self._recent(subject.uid, reason, now) < MOST_OF_A_REASON:
                    self._written[key] = await self._create(subject, type_, reason, message, now)
                return
            event.count += 1
            if now - event.written_at >= SAME_FOR:
                event.written_at = now
                await self._count(subject.namespace, event)
        except NotFound:
            self._written.pop(key, None)  # it was too old; or the namespace is gone
        except KubeError as error:
            self._failed(error)

    async def _create(self, subject: Subject, type_: str, reason: str, message: str, now: float) -> _Written:
        moment = _moment()
        name = _name(subject, reason, message)
        body: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": subject.namespace, "name": name},
            "involvedObject": _reference(subject),
            "type": type_,
            "reason": reason,
            "message": message,
            "source": {"component": COMPONENT, "host": self._identity},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._identity,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        await self._kube.create(EVENTS, subject.namespace, body)
        return _Written(name, moment, 1, now)

    async def _count(self, namespace: str, event: _Written) -> None:
        change = {"count": event.count, "lastTimestamp": _moment()}
        await self._kube.merge(EVENTS, namespace, event.name, change)

    def _recent(self, uid: str, reason: str, now: float) -> int:
        return sum(
            1
            for (subject, why, _), event in self._written.items()
            if subject == uid and why == reason and now - event.written_at < SAME_FOR
        )

    def _forget(self, now: float) -> None:
        for key in [key for key, event in self._written.items() if now - event.written_at > FORGOTTEN_AFTER]:
            del self._written[key]


def _reference(subject: Subject) -> dict[str, Any]:
    return {
        "apiVersion": subject.api_version,
        "kind": subject.kind,
        "namespace": subject.namespace,
        "name": subject.name,
        "uid": subject.uid,
    }


def _name(subject: Subject, reason: str, message: str) -> str:
    """Return a name that no other event has: Kubernetes' own are <object>.<time in hexadecimal>."""
    about = f"{subject.uid}\0{reason}\0{message}\0{time.time_ns()}".encode()
    beginning = subject.name[:200].rstrip("-.")  # a part of a name ends with a letter or digit
    return f"{beginning}.{hashlib.sha256(about).hexdigest()[:16]}"


def _moment() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
