"""The worker: a process that claims and runs jobs, until it is stopped.

`Worker.run` keeps one `Session` after another; a session that was cut off, since the
database was away for too long, is followed by one under a new id.
"""

import asyncio
import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta

from forge_jobs.errors import ForgeError, InvalidInput, InvalidSetting, StorageUnusable
from forge_jobs.forge import Forge
from forge_jobs.model.error_text import describe
from forge_jobs.model.job import Claim
from forge_jobs.model.moments import as_duration
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.rules import names
from forge_jobs.rules.cron_declarations import written
from forge_jobs.storage.outage import Outage, unless
from forge_jobs.system import place, stop_signals
from forge_jobs.system.exits import contained
from forge_jobs.telemetry import logs
from forge_jobs.telemetry.events import (
    ExitContained,
    HeavyKind,
    PinUnversioned,
    SignalTaken,
    WorkerStopped,
    WorkerStopping,
)
from forge_jobs.telemetry.job_series import job_series
from forge_jobs.worker.endpoints import Endpoints
from forge_jobs.worker.handover import Handover
from forge_jobs.worker.minutes import Minutes
from forge_jobs.worker.session import Session
from forge_jobs.worker.watchdog import Watchdog

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # no vowels and no look-alikes: no words, nothing to misread

UNSAID = "0"  # the version of a worker that was told none

SHORTEST_HEARTBEAT = timedelta(seconds=0.1)


class Worker:
    """Serves `queues` with up to `concurrency` handlers at once.

    `grace`, `heartbeat` and `stale` are seconds or a timedelta. The settings fill in what is not given.
    Raises InvalidInput, with one sentence, when a value is not allowed.
    """

    def __init__(
        self,
        forge: Forge,
        *,
        queues: Sequence[str] | None = None,
        concurrency: int | None = None,
        grace: timedelta | float | None = None,
        heartbeat: timedelta | float | None = None,
        stale: timedelta | float | None = None,
        prefix: str | None = None,
        version: str | None = None,
        name: str | None = None,
        metrics_port: int = -1,
        metrics_host: str = "0.0.0.0",
    ) -> None:
        settings = forge.settings
        self.forge = forge
        wanted = names.listed(settings.queues if queues is None else queues, "queues")
        self.queues = tuple(dict.fromkeys(names.queue(queue) for queue in wanted))
        if not self.queues:
            raise InvalidInput(
                "No queue is declared, allowed is one or more names (queues=[...], --queues or FORGE_QUEUES)."
            )
        self.concurrency = settings.concurrency if concurrency is None else concurrency
        if (
            isinstance(self.concurrency, bool)
            or not isinstance(self.concurrency, int)
            or not 1 <= self.concurrency <= 10_000
        ):
            raise InvalidInput(f"concurrency is {concurrency!r}, allowed is a whole number from 1 to 10000.")
        self.grace = _duration(grace, "grace", settings.grace)
        self.heartbeat = _duration(heartbeat, "heartbeat", settings.heartbeat)
        self.stale = _duration(stale, "stale", settings.stale)
        if self.heartbeat < SHORTEST_HEARTBEAT:
            raise InvalidSetting("heartbeat", f"{self.heartbeat.total_seconds():g} s", "0.1 s or more")
        if self.stale <= 2 * self.heartbeat:
            raise InvalidSetting(
                "stale", f"{self.stale.total_seconds():g} s", "more than twice the heartbeat"
            )
        self.prefix = settings.worker_prefix if prefix is None else names.label_part(prefix, "prefix")
        self.version = settings.worker_version if version is None else names.label_part(version, "version")
        self.name = settings.worker_name if name is None else names.checked_name(name, "worker")
        names.metrics_port(metrics_port)
        self.session: Session | None = None
        self.left_behind = 0  # handlers, in threads or not, that did not stop when told: they still run
        self._endpoints = Endpoints(self.forge, lambda: self.session, metrics_host, metrics_port)
        self._stop = asyncio.Event()
        self._runs = False
        self._reason = ""
        self._ends_at: float | None = None  # monotonic: when its grace is over, once it was told to stop

    @property
    def metrics_port(self) -> int | None:
        """The port of /metrics, /healthz and /readyz while the worker runs; None when it is off."""
        return self._endpoints.port

    def stop(self, reason: str = "asked to", *, grace: timedelta | float | None = None) -> None:
        """Claim nothing new, finish what runs within the grace time, then `run` returns.

        With `grace`, seconds or a timedelta, what runs has that instead. A worker that was told to stop already ends within
        the grace of this call, if that is sooner.
        """
        within = _duration(grace, "grace", self.grace)
        ends_at = time.monotonic() + within.total_seconds()
        if self._ends_at is not None and ends_at >= self._ends_at:
            return
        self._ends_at, self._reason = ends_at, reason
        self._stop.set()
        if self.session is not None:
            self._say_stopping(self.session, within)
            self.session.stop(within)

    async def pause(self) -> None:
        """Claim nothing new until `resume`; what runs goes on, and what was not begun is handed back. See `forge.workers.pause`.

        Raises InvalidInput when the worker does not run, and Managed when an operator runs it.
        """
        await self.forge.workers.pause([self._own_id()])

    async def resume(self) -> None:
        """Claim again. Raises as `pause`."""
        await self.forge.workers.resume([self._own_id()])

    def _own_id(self) -> int:
        if self.session is None or not self.session.is_registered:
            raise InvalidInput("This Worker does not run, allowed is pause and resume while it does.")
        return self.session.info.id

    async def run(self, *, until_empty: bool = False, handle_signals: bool = False) -> None:
        """Run jobs until stopped, or with `until_empty` until nothing is pending and nothing runs.

        With `handle_signals`, SIGTERM, SIGINT and SIGHUP stop the worker, and another one a second
        or more later ends the process at once; in the main thread only. A database that is away is waited for, at the
        start too. What happens is said in the log, by the logger "forge_jobs". Cancelled, it stops
        without grace, hands back what it has, and is gone from the database when CancelledError is
        raised. Raises what waiting does not cure: StorageUnusable, SchemaTooNew, SchemaOutdated,
        InvalidSetting. When it has returned it may be called again; while it runs, InvalidInput is raised.
        """
        if self._runs:
            raise InvalidInput("This Worker is running already, allowed is another Worker beside it.")
        here = threading.current_thread()
        if handle_signals and here is not threading.main_thread():
            raise InvalidInput(
                f"handle_signals is True in the thread {here.name!r}, allowed is the main thread."
            )
        self._runs = True
        try:
            await self._run(until_empty, handle_signals)
        finally:
            self._runs = False
            self._stop = asyncio.Event()
            self._ends_at = None

    async def _run(self, until_empty: bool, handle_signals: bool) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(logs.say(self.forge.telemetry))
            stack.enter_context(contained(self._exited))
            self.forge.dependencies.check(self.forge.handlers.values())
            if handle_signals:
                stack.enter_context(stop_signals.heard(self.stop, taken=self._say_taken))
            await unless(self._stop, self._open(stack))
            outage = Outage("registering", self.forge.telemetry)
            handovers: list[Handover] = []
            has_begun = False  # once it has, any error of the database may pass
            stack.callback(self._give_up, handovers)
            info = self._info()
            while not self._stop.is_set():
                session = self.session = Session(
                    self.forge,
                    info,
                    grace=self.grace,
                    heartbeat=self.heartbeat,
                    stale=self.stale,
                    handovers=handovers,
                    begun=outage.over,
                )
                try:
                    with Watchdog(self.forge.telemetry, session.info.label, session.claim_of):
                        is_cut_off = await session.run(until_empty=until_empty)
                except ForgeError as error:
                    if isinstance(error, StorageUnusable) and not has_begun:
                        raise
                    if session.has_begun:  # else it may be registered, and nobody should miss it later
                        info = self._info(follows=info.id)
                    await unless(self._stop, outage.wait(error))
                    continue
                except asyncio.CancelledError:
                    self._say_stopped(session)
                    raise
                has_begun = True
                self._say_stopped(session)
                if not is_cut_off:
                    return
                info = self._info(follows=info.id)

    async def _open(self, stack: AsyncExitStack) -> None:
        """Probes are answered, the database is open and has the queues; `stack` ends what was begun."""
        await stack.enter_async_context(self._endpoints)
        outage = Outage("opening the database", self.forge.telemetry)
        await outage.until_answered(self.forge.open)
        stack.push_async_callback(self._close)
        self.forge.storage.claims.reads_meta = bool(self.forge.plugins.around)
        stack.enter_context(self.forge.held())
        await outage.until_answered(lambda: self.forge.ensure_queues(*self.queues))
        await self.forge.publish()
        for kind, handler in self.forge.handlers.items():
            if handler.slots > self.concurrency:
                self.forge.telemetry.emit(HeavyKind(kind, handler.slots, self.concurrency))
        pinned = sorted(kind for kind, handler in self.forge.handlers.items() if handler.is_pinned)
        if pinned and self.version == UNSAID and self.forge.settings.pool is None:
            self.forge.telemetry.emit(PinUnversioned(pinned))
        telemetry = self.forge.telemetry
        await stack.enter_async_context(
            Minutes(self.forge.storage.statistics, telemetry, job_series(telemetry))
        )

    async def _close(self) -> None:
        """The forge is closed, which has what is left of the grace since the worker was told to stop."""
        grace = self.grace.total_seconds()
        left = grace if self._ends_at is None else min(grace, self._ends_at - time.monotonic())
        await self.forge.close(grace=max(0.0, left))

    def _info(self, follows: int | None = None) -> WorkerInfo:
        worker_id = secrets.randbits(62) + 1
        short = "".join(ALPHABET[worker_id // len(ALPHABET) ** place % len(ALPHABET)] for place in range(8))
        info = WorkerInfo(
            id=worker_id,
            label=self.name or f"{self.prefix}-worker-{self.version}-{short}",
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self.version,
            queues=self.queues,
            kinds=tuple(sorted(self.forge.handlers)),
            concurrency=self.concurrency,
            crons={name: written(cron) for name, cron in self.forge.handlers.crons().items()},
            pool=self.forge.settings.pool,
            version_id=self.forge.settings.version_id,
            pod=self.forge.settings.pod,
            follows=follows,
        )
        return replace(info, label=f"{self.name}-{short}") if self.name else info

    def _give_up(self, handovers: list[Handover]) -> None:
        for handover in handovers:
            handover.given_up(self.forge.telemetry)

    def _exited(self, claim: Claim | None, error: BaseException) -> None:
        """An exit outside of any handler's call would have ended the event loop; `claim` is the job that it came from, if that is known."""
        session, running = self.session, list[int]()
        if session is not None and session.is_registered:
            running = sorted(session.hand.running)
            if claim is not None:
                session.runners.exited(claim, error)
        label = self.name or self.prefix if session is None else session.info.label
        self.forge.telemetry.emit(ExitContained(label, describe(error), place.raised(error), claim, running))
        if claim is None and stop_signals.is_answer(error):
            self.stop(f"{type(error).__name__} of who hears its signals")

    def _say_taken(self, name: str) -> None:
        self.forge.telemetry.emit(SignalTaken(name))

    def _say_stopped(self, session: Session) -> None:
        self.left_behind += session.left_behind
        self.forge.telemetry.emit(WorkerStopped(session.info.label, session.handed_back))

    def _say_stopping(self, session: Session, grace: timedelta) -> None:
        running = len(session.hand.running) if session.is_registered else 0
        self.forge.telemetry.emit(
            WorkerStopping(session.info.label, self._reason, running, grace.total_seconds())
        )


def _duration(given: timedelta | float | None, name: str, otherwise: timedelta) -> timedelta:
    duration = as_duration(given, name)
    return otherwise if duration is None else duration
