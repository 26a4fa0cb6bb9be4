"""Signals without an event loop: what a forge does to send them, done when it returns."""

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar, overload

from forge_jobs.client.signals import Mode, Signaller
from forge_jobs.model.job import Enqueued
from forge_jobs.model.signal import Callback, Signalled, SignalMode
from forge_jobs.rules import names

T = TypeVar("T")


class SyncSignals:
    """What a SyncForge does to send signals."""

    @property
    def _signaller(self) -> Signaller:
        """What sends signals on the storage of `forge.sync`. Overwritten by SyncForge."""
        raise NotImplementedError

    def do(self, work: Coroutine[Any, Any, T], connection: Any = None) -> T:
        """Overwritten by SyncForge."""
        raise NotImplementedError

    @overload
    def signal(
        self,
        name: str,
        value: Any = None,
        *,
        tag: str,
        kind: str | None = None,
        mode: Mode = SignalMode.FIRST,
        connection: Any = None,
    ) -> dict[int, Signalled]: ...
    @overload
    def signal(
        self,
        name: str,
        value: Any = None,
        *,
        job: int | Enqueued[Any],
        mode: Mode = SignalMode.FIRST,
        connection: Any = None,
    ) -> Signalled: ...
    @overload
    def signal(
        self,
        name: str,
        value: Any = None,
        *,
        key: str,
        kind: str,
        mode: Mode = SignalMode.FIRST,
        connection: Any = None,
    ) -> Signalled: ...
    def signal(
        self,
        name: str,
        value: Any = None,
        *,
        job: int | Enqueued[Any] | None = None,
        kind: str | None = None,
        key: str | None = None,
        tag: str | None = None,
        mode: Mode = SignalMode.FIRST,
        connection: Any = None,
    ) -> Any:
        """Send the signal, and return what became of it, as `forge.signal` does; with `connection`, in the transaction of that one."""
        work = self._signaller._signal(name, value, job, kind, key, tag, mode, connection)
        return self.do(work, connection)

    def callback_token(
        self,
        job: int | Enqueued[Any],
        signal: str,
        *,
        expires: timedelta | float,
        use: str | None = None,
        connection: Any = None,
    ) -> str:
        """Return a text by which somebody may send this signal to the job, once, within this time, as `forge.callback_token` does."""
        job_id = names.job_id(job)
        work = self._signaller._callback_token(job_id, signal, expires, use, connection=connection)
        return self.do(work, connection)

    def read_callback(self, token: str) -> Callback:
        """Return what a callback token is for, as `forge.read_callback` does."""
        return self.do(self._signaller._read_callback(token))

    def signal_by_token(self, token: str, value: Any = None, *, connection: Any = None) -> Signalled:
        """Send the signal for which the callback token is, as `forge.signal_by_token` does."""
        return self.do(self._signaller._signal_by_token(token, value, connection), connection)
