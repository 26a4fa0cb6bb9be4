"""Which of several operators acts: the one that holds a Lease, renewed every two seconds.

The numbers are those of client-go. Clocks of different machines are never compared: a
candidate waits until the Lease has not changed for its whole duration, by its own clock.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from forge_operator.cluster.api import LEASES, Kube, Object
from forge_operator.cluster.errors import Conflict, KubeError, NotFound


class NotLeading(Exception):
    """The Lease is not ours any more, so nothing may be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """Seconds."""

    duration: float = 15.0  # after which others may take it
    deadline: float = 10.0  # without a renewal the holder gives up
    retry: float = 2.0


class Candidate:
    """One operator that would hold the Lease `name` of `namespace` as `identity`."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        *,
        times: LeaseTimes | None = None,
        failed: Callable[[KubeError], None] = lambda error: None,
    ) -> None:
        self._kube, self._namespace, self._name, self.identity = kube, namespace, name, identity
        self._times = times or LeaseTimes()
        self._failed = failed
        self._seen: Any = None  # what the Lease said last
        self._seen_at = 0.0
        self._renewed_at: float | None = None
        self.answered = False  # the API server has told who holds it, at least once

    @property
    def holds(self) -> bool:
        """Whether no other operator can hold the Lease now: it was renewed within the deadline."""
        return self._renewed_at is not None and time.monotonic() - self._renewed_at < self._times.deadline

    def has_held_since(self, moment: float) -> bool:
        """Whether no other operator can hold the Lease now, and it was renewed after that moment (monotonic)."""
        return self.holds and self._renewed_at is not None and self._renewed_at > moment

    async def take(self) -> None:
        """Wait until we hold the Lease."""
        while not await self._tried():
            await asyncio.sleep(self._times.retry)

    async def keep(self) -> None:
        """Renew the Lease until it is lost; returns then."""
        while True:
            await asyncio.sleep(self._times.retry)
            if not self.holds:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._remaining()):
                    if not await self._tried() and self._is_of_another():
                        self._renewed_at = None
                        return

    async def release(self) -> None:
        """Another one may take the Lease at once, if we held it."""
        if self._renewed_at is None:
            return
        self._renewed_at = None
        with suppress(KubeError, TimeoutError):  # then it runs out by itself
            async with asyncio.timeout(self._times.retry):
                lease = await self._kube.get(LEASES, self._namespace, self._name)
                if lease["spec"].get("holderIdentity") == self.identity:
                    lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _moment()}
                    await self._kube.replace(LEASES, self._namespace, self._name, lease)

    def _remaining(self) -> float:
        assert self._renewed_at is not None
        return max(0.1, self._renewed_at + self._times.deadline - time.monotonic())

    async def _tried(self) -> bool:
        started = time.monotonic()  # a renewal counts from before it was sent
        try:
            got = await self._try()
        except KubeError as error:
            self._failed(error)
            return False
        if got:
            self._renewed_at = started
        return got

    async def _try(self) -> bool:
        try:
            lease = await self._kube.get(LEASES, self._namespace, self._name)
        except NotFound:
            return await self._made()
        self.answered = True
        self._notice(lease)
        if self._is_of_another() and time.monotonic() - self._seen_at < self._times.duration:
            return False
        lease["spec"] = self._spec(lease.get("spec") or {})
        return await self._written(lease)

    async def _made(self) -> bool:
        metadata = {"namespace": self._namespace, "name": self._name}
        body: Object = {"apiVersion": LEASES.group_version, "kind": LEASES.kind, "metadata": metadata}
        try:
            lease = await self._kube.create(LEASES, self._namespace, body | {"spec": self._spec({})})
        except Conflict:
            return False
        self.answered = True
        self._notice(lease)
        return True

    async def _written(self, lease: Object) -> bool:
        try:
            lease = await self._kube.replace(LEASES, self._namespace, self._name, lease)
        except Conflict:
            return False
        self._notice(lease)
        return True

    def _notice(self, lease: Object) -> None:
        spec = lease.get("spec") or {}
        if spec != self._seen:
            self._seen, self._seen_at = spec, time.monotonic()

    def _is_of_another(self) -> bool:
        holder = (self._seen or {}).get("holderIdentity")
        return bool(holder) and holder != self.identity

    def _spec(self, before: Object) -> Object:
        changes_hands = before.get("holderIdentity") != self.identity
        now = _moment()
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._times.duration)),
            "acquireTime": now if changes_hands else before.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (1 if changes_hands and before else 0),
        }


def _moment() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
