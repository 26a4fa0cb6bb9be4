"""kopf as informer: it reports which objects have changed, and decides nothing. No other file imports kopf.

kopf runs in a thread with an event loop of its own, since it cancels every task of its loop when it
ends. It writes nothing to any object: no annotation, no finalizer, no event.
"""

import asyncio
import dataclasses
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

import kopf

from forge_operator.cluster.api import CRONS, DEPLOYMENTS, QUEUES, access
from forge_operator.naming import GROUP, MANAGER
from forge_operator.state.keys import CRON, QUEUE, Key

OURS = f"app.kubernetes.io/managed-by={MANAGER}"
"""The selector of the Deployments whose changes are reported; the API server applies it."""

UNUSED_FINALIZER = f"{GROUP}/kopf"
"""The finalizer that kopf takes for its own and removes from every object, since no handler here needs one."""

CLEAN_END = 2.0
"""Seconds that kopf gets to close its watches. It may hang for ever: a watch that is stopped while it
reconnects goes on."""

DEAF_AFTER = 20.0
"""Seconds within which the API server surely reports a change."""


def settings() -> kopf.OperatorSettings:
    """Return how kopf is to behave."""
    options = kopf.OperatorSettings()
    options.scanning.disabled = True
    options.peering.standalone = True
    options.posting.enabled = False
    options.posting.loggers = False
    options.persistence.finalizer = UNUSED_FINALIZER
    options.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    options.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(
        prefix=GROUP, key="last-handled-configuration", v1=False
    )
    watching = options.watching
    watching.server_timeout, watching.client_timeout, watching.connect_timeout = 290, 330, 5
    watching.inactivity_timeout, watching.reconnect_backoff, watching.chunk_size = 70, 1.0, 500
    watching.label_selectors[DEPLOYMENTS.group_version, DEPLOYMENTS.plural] = OURS
    options.networking.request_timeout, options.networking.connect_timeout = 30, 5
    options.networking.error_backoffs = (0.5, 1, 2, 3)  # then what is refused ends kopf, and so the process
    options.execution.default_backoff, options.execution.max_workers = 15, 8
    options.queueing.worker_limit = None
    options.process.ultimate_exiting_timeout = None  # nobody waits for its end: see Informer.run
    return options


class Informer:
    """Calls `changed` for every object that changed, in the event loop that started it."""

    def __init__(
        self,
        changed: Callable[[Key], None],
        *,
        heard: Callable[[str], None] = lambda kind: None,
        namespaces: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._changed, self._heard, self._namespaces = changed, heard, tuple(namespaces)
        self._clock = clock
        self._seen: dict[Key, object] = {}
        self._unheard: dict[Key, float] = {}  # since when; told of again, it is not among them
        self._stop: Callable[[], object] = lambda: None  # kopf, once it runs

    async def run(self) -> None:
        """Watch until cancelled. Returns or raises as soon as kopf begins to end by itself, which it should not."""
        logging.getLogger("kopf").setLevel(logging.WARNING)
        logging.getLogger("kopf._core.reactor.running").addFilter(_without_signals)
        ended: Future[None] = Future()
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._run, args=(loop, ended), name="kopf", daemon=True)
        thread.start()
        try:
            await asyncio.wrap_future(ended)
        finally:
            with suppress(RuntimeError):  # its loop has ended
                self._stop()
            await asyncio.to_thread(thread.join, CLEAN_END)

    def registry(self, tell: Callable[[str, Mapping[str, Any]], None]) -> kopf.OperatorRegistry:
        """Return handlers that call `tell` with the kind of an object that changed, and the event."""
        registry = kopf.OperatorRegistry()
        for resource in (QUEUES, CRONS, DEPLOYMENTS):
            group, version = resource.group_version.split("/")

            def handle(event: Any, param: Any, **_: Any) -> None:
                tell(param, event)

            kopf.on.event(
                group, version, resource.plural, id=resource.plural, param=resource.kind, registry=registry
            )(_async(handle))
        kopf.on.login(registry=registry)(_login)
        return registry

    def _run(self, loop: asyncio.AbstractEventLoop, ended: "Future[None]") -> None:
        def tell(kind: str, event: Mapping[str, Any]) -> None:
            loop.call_soon_threadsafe(self._reported, kind, event)

        async def operate() -> None:
            # An event of its loop: for one of threading, kopf would leave a thread waiting, and
            # the loop could not end before somebody set it.
            stop, ours = asyncio.Event(), asyncio.get_running_loop()
            self._stop = lambda: ours.call_soon_threadsafe(stop.set)
            if ended.cancelled():
                return
            tasks = await kopf.spawn_tasks(
                registry=self.registry(tell),
                settings=settings(),
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=stop,
            )
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            errors = [task.exception() for task in done if not task.cancelled()]
            _end(ended, next(filter(None, errors), None))
            await kopf.run_tasks(tasks)  # now it takes down what is left

        try:
            asyncio.run(operate())
        except BaseException as error:
            # Any error that ended kopf has to be known outside of this thread.
            _end(ended, error)

    def _reported(self, kind: str, event: Mapping[str, Any]) -> None:
        self._heard(kind)
        changed = event["object"]
        key = _key(kind, changed)
        if key is None:
            return
        self._unheard.pop(key, None)
        if key.kind == kind and not self._is_news(key, event.get("type"), changed):
            return
        self._changed(key)

    def _is_news(self, key: Key, type_: str | None, found: Mapping[str, Any]) -> bool:
        """Whether anything has changed besides the status, which the operator itself writes."""
        if type_ == "DELETED":
            self._seen.pop(key, None)
            return True
        seen = _without_status(found)
        if self._seen.get(key) == seen:
            return False
        self._seen[key] = seen
        return True

    def missed(self, listed: Mapping[Key, Mapping[str, Any]]) -> int:
        """Return how many objects, as they were listed just now, changed more than DEAF_AFTER ago without a report from the API server."""
        now = self._clock()
        changed = {key for key, found in listed.items() if self._seen.get(key) != _without_status(found)}
        self._unheard = {key: self._unheard.get(key, now) for key in changed}
        return sum(now - since >= DEAF_AFTER for since in self._unheard.values())


def _end(ended: "Future[None]", error: BaseException | None) -> None:
    """Resolve the future, unless it is already."""
    with suppress(InvalidStateError):
        ended.set_result(None) if error is None else ended.set_exception(error)


def _without_status(found: Mapping[str, Any]) -> object:
    """Return what changes when somebody changes the object, and not when its status is written."""
    metadata = found.get("metadata") or {}
    parts = ("uid", "generation", "annotations", "deletionTimestamp", "finalizers")
    return tuple(metadata.get(part) for part in parts)


def _async(handle: Callable[..., None]) -> Callable[..., Any]:
    """A synchronous handler would be run in a thread each time."""

    async def handler(**facts: Any) -> None:
        handle(**facts)

    return handler


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Connection(kopf.ConnectionInfo):
    """Trusts the cluster's authority as it is: many lack the key usage that Python 3.13 asks for."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


async def _login(**_facts: Any) -> kopf.ConnectionInfo:
    """Return the same connection to the API server that everything else uses."""
    configuration = await access()
    scheme, _, token = (
        (await configuration.get_api_key_with_prefix("BearerToken") or "").strip().partition(" ")
    )
    return _Connection(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        username=configuration.username or None,
        password=configuration.password or None,
        scheme=scheme.capitalize() or None if token else None,
        token=token or scheme or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
    )


def _key(kind: str, found: Mapping[str, Any]) -> Key | None:
    """Return the object to look at: of a Deployment its owner."""
    metadata = found.get("metadata") or {}
    namespace = metadata.get("namespace", "")
    if kind in (QUEUE, CRON):
        return Key(kind, namespace, metadata.get("name", ""))
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("kind") == QUEUE and str(owner.get("apiVersion", "")).startswith(f"{GROUP}/"):
            return Key(QUEUE, namespace, owner["name"])
    return None


def _without_signals(record: logging.LogRecord) -> bool:
    """Signals are handled in the main thread, as kopf need not tell."""
    return "OS signals are ignored" not in record.getMessage()
