"""The plugins that a forge uses, and which of their methods they override."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from forge_jobs.codecs.encoded import Payload
from forge_jobs.errors import InvalidInput, NotEnqueued
from forge_jobs.model.error_text import sentence
from forge_jobs.model.job import Enqueued, NewJob
from forge_jobs.plugins.hook_timer import HookTimer
from forge_jobs.plugins.plugin import Draft, Plugin
from forge_jobs.rules import names
from forge_jobs.telemetry import events
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.forge import Forge

Send = Callable[[], Coroutine[Any, Any, list[Enqueued]]]
"""Enqueues jobs, and returns the answers in their order."""

HOOKS = tuple(name for name in vars(Plugin) if not name.startswith("_"))
"""The methods of a plugin."""

BEGINNINGS = ("on_", "before_", "after_", "around")
"""How their names begin. A method of a plugin that begins so and is none of them would never be called."""


class Plugins:
    """Those in use, in the order of their use: all of them, and those that override a method."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._all: list[Plugin] = []
        self._started: list[Plugin] = []
        self.around: list[Plugin] = []
        self.before_enqueue: list[Plugin] = []
        self.around_enqueue: list[Plugin] = []

    def use(self, plugin: object) -> None:
        """The plugin is in use from now on. Raises InvalidInput."""
        if not isinstance(plugin, Plugin):
            given = f"the class {plugin.__name__}" if inspect.isclass(plugin) else repr(plugin)
            raise InvalidInput(f"The plugin is {given}, allowed is an object of a class below Plugin.")
        if any(used is plugin for used in self._all):
            raise InvalidInput(f"The plugin {title(plugin)} is in use already, allowed is once.")
        _check_methods(plugin)
        self._all.append(plugin)
        if _overrides(plugin, "around"):
            self.around.append(plugin)
        if _overrides(plugin, "before_enqueue"):
            self.before_enqueue.append(plugin)
        if _overrides(plugin, "around_enqueue"):
            self.around_enqueue.append(plugin)
        if _overrides(plugin, "on_event"):
            self._telemetry.subscribe(plugin.on_event)
            self._telemetry.wants_starts = True

    @contextmanager
    def innermost(self, plugin: Plugin) -> Iterator[None]:
        """In this block the plugin's `around` stands inside of all others, for the workers that begin in it."""
        self.around.append(plugin)
        try:
            yield
        finally:
            self.around.remove(plugin)

    async def start(self, forge: "Forge") -> None:
        """Every plugin has heard that the forge is open. Raises what one of them raises, which an event says."""
        for plugin in self._all:
            if _overrides(plugin, "on_startup"):
                hook = f"{title(plugin)}.on_startup"
                try:
                    with HookTimer(hook, self._telemetry):
                        await plugin.on_startup(forge)
                except Exception as error:
                    self._telemetry.emit(events.HookFailed(hook, error))
                    raise
            self._started.append(plugin)

    def forget(self) -> None:
        """None of them is started: the forge was open in an event loop that is gone."""
        self._started.clear()

    def stops(self, forge: "Forge") -> list[Callable[[], Awaitable[None]]]:
        """Return what has to be awaited, the last one first, so that every plugin that was started has heard of the end.

        None of it raises an error of a plugin.
        """
        started = [plugin for plugin in self._started if _overrides(plugin, "on_shutdown")]
        self._started.clear()
        return [self._stop(plugin, forge) for plugin in started]

    def _stop(self, plugin: Plugin, forge: "Forge") -> Callable[[], Awaitable[None]]:
        async def stop() -> None:
            try:
                await plugin.on_shutdown(forge)
            except Exception as error:
                self._telemetry.emit(events.HookFailed(stop.__qualname__, error))

        stop.__qualname__ = f"{title(plugin)}.on_shutdown"
        return stop

    @property
    def hear_enqueues(self) -> bool:
        """Whether one of them has to know of each job that is enqueued."""
        return bool(self.before_enqueue or self.around_enqueue)

    def heard(
        self, kind: str, payload: Payload | None, options: Mapping[str, Any], queue: str | None
    ) -> Draft:
        """Return the job that is asked for, as the plugins let it be; its handler says the queue. Raises NotEnqueued."""
        own = {name: value for name, value in options.items() if name != "connection"}
        draft = Draft(kind, _copied(payload), own, declared_queue=queue)
        for plugin in self.before_enqueue:
            try:
                plugin.before_enqueue(draft)
                _check_draft(draft, kind)
            except NotEnqueued:
                raise
            except Exception as error:
                raise self._kept(f"{title(plugin)}.before_enqueue", error) from error
        return draft

    def _kept(self, hook: str, error: Exception) -> NotEnqueued:
        """Return what whoever enqueues gets, since a plugin failed, which is said."""
        self._telemetry.emit(events.HookFailed(hook, error))
        return NotEnqueued(f"{hook} failed: {type(error).__name__}: {sentence(error)}")

    async def sent(self, jobs: Sequence[NewJob], send: Send) -> list[Enqueued]:
        """Return what `send` returns, which is called inside of all plugins. Raises what it raises, and NotEnqueued."""
        for plugin in reversed(self.around_enqueue):
            send = partial(self._sent, plugin, jobs, send)
        return await send()

    async def _sent(self, plugin: Plugin, jobs: Sequence[NewJob], send: Send) -> list[Enqueued]:
        hook = f"{title(plugin)}.around_enqueue"
        made: list[Enqueued] | None = None
        of_call: BaseException | None = None

        async def call() -> list[Enqueued]:
            nonlocal made, of_call
            if made is not None:  # once more, and the jobs are there
                return made
            try:
                made = await send()
            except BaseException as error:
                of_call = error
                raise
            return made

        try:
            with HookTimer(hook, self._telemetry):
                await _in_loop_or_at_once(plugin.around_enqueue(jobs, call))
        except Exception as error:
            if made is None and (error is of_call or isinstance(error, NotEnqueued)):
                raise
            kept = self._kept(hook, error)
            if made is None:
                raise kept from error
        finally:
            failed, of_call = of_call, None  # whose traceback has this call
        if made is None:
            raise failed or NotEnqueued(f"{hook} did not send it")
        return made


async def _in_loop_or_at_once(work: Coroutine[Any, Any, None]) -> None:
    """The work of a plugin is done. Raises InvalidInput where no event loop runs and it awaits more than it is given."""
    if asyncio._get_running_loop() is not None:
        await work
        return
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise InvalidInput(
        "It awaits something without an event loop, allowed there is what it is given to call."
    )


def title(plugin: Plugin) -> str:
    """Return the name of a plugin for people: that of its class."""
    return type(plugin).__name__


def _check_draft(draft: Draft, kind: str) -> None:
    """Raise InvalidInput for what a plugin cannot make of a job."""
    if draft.kind != kind:
        raise InvalidInput(
            f"kind of the job is {draft.kind!r}, allowed is {kind!r}, of which it was asked for."
        )
    for name, value in (("options", draft.options), ("meta", draft.meta)):
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise InvalidInput(f"{name} of the job are {value!r}, allowed is a dict by name.")


def _copied(payload: Payload | None) -> Payload:
    """Return the payload so that a plugin which changes it does not change what its caller holds."""
    if payload is None:
        return {}
    if isinstance(payload, Mapping):
        return dict(payload)
    return list(payload) if isinstance(payload, list | tuple) else payload


def _overrides(plugin: Plugin, hook: str) -> bool:
    method = getattr(plugin, hook)
    return getattr(method, "__func__", method) is not getattr(Plugin, hook)


def _check_methods(plugin: Plugin) -> None:
    """Raise InvalidInput for a method that would not be called, or not as it should be."""
    for name in dir(type(plugin)):
        if name in HOOKS:
            wanted = inspect.iscoroutinefunction(getattr(Plugin, name))
            if _overrides(plugin, name) and inspect.iscoroutinefunction(getattr(plugin, name)) != wanted:
                allowed = "an async function" if wanted else "a plain function"
                raise InvalidInput(f"{title(plugin)}.{name} is {_other(wanted)}, allowed is {allowed}.")
        elif name.startswith(BEGINNINGS):
            nearest = names.nearest(name, HOOKS)
            meant = f"did you mean {nearest}?" if nearest else f"allowed are {', '.join(HOOKS)}."
            raise InvalidInput(f"{title(plugin)}.{name} is no method that is ever called; {meant}")


def _other(wants_async: bool) -> str:
    return "a plain function" if wants_async else "an async function"
