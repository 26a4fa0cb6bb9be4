"""How a worker is seen over HTTP: /metrics, /healthz and /readyz while it runs."""

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from forge_jobs.forge import Forge
from forge_jobs.probes.server import HealthServer, why_unanswered
from forge_jobs.worker.session import Session

if TYPE_CHECKING:
    from forge_jobs.probes.metrics import Metrics

OFF = -1
"""The port that means: do not listen."""


class Endpoints:
    """Listens on `port` (0: any free one, -1: not at all) while entered. `session` says which one runs now."""

    def __init__(self, forge: Forge, session: Callable[[], Session | None], host: str, port: int) -> None:
        self.port: int | None = None
        self._forge = forge
        self._session = session
        self._host, self._wanted = host, port
        self._server: HealthServer | None = None
        self._metrics: Metrics | None = None

    async def __aenter__(self) -> Self:
        if self._wanted == OFF:
            return self
        from forge_jobs.probes.metrics import Metrics  # and prometheus_client, which nobody else needs

        metrics = Metrics(
            self._forge.telemetry,
            self._forge.storage,
            running=self._running,
            slots_in_use=self._slots_in_use,
            stale=self._forge.settings.stale,
        )
        server = HealthServer(
            self._host,
            self._wanted,
            metrics=metrics.scrape,
            is_alive=lambda: None,
            is_ready=self._why_not_ready,
        )
        try:
            self.port = await server.start()
        except BaseException:
            metrics.close()
            raise
        self._server, self._metrics = server, metrics
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._metrics is not None:
            await self._server.stop()
            self._metrics.close()
            self._server, self.port = None, None

    def _running(self) -> int:
        session = self._session()
        return len(session.hand.running) if session is not None and session.is_registered else 0

    def _slots_in_use(self) -> int:
        session = self._session()
        return session.hand.slots_in_use if session is not None and session.is_registered else 0

    async def _why_not_ready(self) -> str | None:
        session = self._session()
        if session is None or not session.is_registered:
            return "The worker is not registered."
        if session.is_stopping:
            return "The worker is stopping."
        unanswered = await why_unanswered(self._forge.storage.ping)
        ailment = session.ailment
        reasons = [unanswered, None if ailment is None else ailment.sentence]
        return " ".join(filter(None, reasons)) or None
