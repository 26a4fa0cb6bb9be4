"""How handlers are called that get what the program provides, or around which plugins stand.

What a runner calls is found once for a kind. Where nothing is provided and no plugin stands around jobs, it is the handler.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, cast

from forge_jobs.codecs.bound import result_of
from forge_jobs.codecs.plain import decode
from forge_jobs.errors import NotEnqueued
from forge_jobs.forge import Forge
from forge_jobs.handlers.context import Context
from forge_jobs.handlers.handler import Handler
from forge_jobs.handlers.placement import Placement
from forge_jobs.model.decision import Decision
from forge_jobs.plugins.hook_timer import HookTimer
from forge_jobs.plugins.plugin import JobCall, Plugin
from forge_jobs.plugins.plugins import title
from forge_jobs.rules.returned import PLAIN, KeptResult, settled
from forge_jobs.telemetry.events import HookFailed
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.attempt import Attempt

AnyHandler = Handler[Any, Any]
Outside = Callable[[AnyHandler, Attempt, Context, dict[str, Any]], Awaitable[Any]]
"""Calls a handler in a thread or a process, for an attempt, with its context and arguments."""

Inner = Callable[[dict[str, Any]], Awaitable[Any]]
"""Calls a handler with these arguments."""


def calls(forge: Forge, running: Mapping[int, Attempt], outside: Outside) -> Mapping[str, AnyHandler]:
    """Return what is called for each kind; `running` are the attempts by job."""
    handlers = forge.handlers.by_kind
    needs = any(handler.arguments.provided for handler in handlers.values())
    return HookedHandlers(forge, running, outside) if forge.plugins.around or needs else handlers


class HookedHandlers(dict[str, AnyHandler]):
    """The handlers by kind, as they are called; those that are declared later too."""

    def __init__(self, forge: Forge, running: Mapping[int, Attempt], outside: Outside) -> None:
        self._forge, self._running, self._outside = forge, running, outside

    def __missing__(self, kind: str) -> AnyHandler:
        handler = self._forge.handlers.by_kind[kind]
        if self._forge.plugins.around or handler.arguments.provided:
            # It has all that a runner asks of a handler.
            handler = cast(AnyHandler, HookedHandler(handler, self._forge, self._running, self._outside))
        self[kind] = handler
        return handler


class HookedHandler:
    """A handler as an async function that takes the context, whatever it is itself."""

    placement = Placement.LOOP
    takes_context = True
    pays_ahead = False  # a plugin may give other arguments

    def __init__(
        self, handler: AnyHandler, forge: Forge, running: Mapping[int, Attempt], outside: Outside
    ) -> None:
        self._handler = handler
        self.arguments, self.redact = handler.arguments, handler.redact
        self._dependencies, self._telemetry = forge.dependencies, forge.telemetry
        self._plugins = forge.plugins.around
        self._running, self._outside = running, outside

    async def function(self, context: Context, /, **arguments: Any) -> Any:
        """Call the handler, with what it is provided with, inside of all plugins; return or raise what becomes of that."""
        attempt = self._running[context.job_id]

        call: Inner = partial(self._called, attempt, context)
        for plugin in reversed(self._plugins):
            call = Surrounding(plugin, context, call, self._telemetry).called
        return await call(arguments)

    async def _called(self, attempt: Attempt, context: Context, arguments: dict[str, Any]) -> Any:
        handler = self._handler
        async with AsyncExitStack() as stack:
            if handler.arguments.provided:
                arguments = arguments | await self._dependencies.of(
                    handler.arguments.provided, context, stack
                )
            if handler.placement is not Placement.LOOP:
                result = await self._outside(handler, attempt, context, arguments)
            elif handler.takes_context:
                context.task_id = id(asyncio.current_task())  # a plugin may have called it in another one
                result = await handler.function(context, **arguments)
            else:
                result = await handler.function(**arguments)
            if result is None or type(result) in PLAIN:
                return result
            if (
                type(result) is KeptResult and result.encoded is not None
            ):  # plugins see what a process returned
                return decode(result.encoded, context.claim.codec, of=result_of(context.job_id))
            return await settled(result)  # it may still have to run, and needs what it is provided with


class Surrounding:
    """One plugin around one call: what is wrong with the plugin itself is said, with its name."""

    def __init__(
        self,
        plugin: Plugin,
        context: Context,
        inner: Inner,
        telemetry: Telemetry,
    ) -> None:
        self._plugin, self._context, self._inner, self._telemetry = plugin, context, inner, telemetry
        self._hook = f"{title(plugin)}.around"
        self._timer = HookTimer(self._hook, telemetry, context.claim)
        self._of_call: BaseException | None = None  # what the call raised last
        self._going_on = 0  # calls that have not ended
        self._has_ended = False

    async def called(self, arguments: dict[str, Any]) -> Any:
        """Run the plugin's `around`; return or raise what it does."""
        try:
            with self._timer:
                value = await self._plugin.around(
                    self._context, JobCall(self._call, arguments, self._context.claim.meta)
                )
        except Exception as error:
            if not self._is_meant(error):
                self._say(error)
            raise
        finally:
            self._of_call = None  # whose traceback has this call, and with it the task of the runner
            self._has_ended = True
        if self._going_on:  # the job has ended, and its handler has not
            self._say(RuntimeError("it returned before its call"))
        return value

    def _say(self, error: Exception) -> Exception:
        self._telemetry.emit(HookFailed(self._hook, error, self._context.claim))
        return error

    async def _call(self, arguments: dict[str, Any]) -> Any:
        if self._has_ended:
            raise self._say(RuntimeError("it calls the handler of a job that has ended"))
        self._timer.stop()
        self._going_on += 1
        try:
            return await self._inner(arguments)
        except BaseException as error:
            self._of_call = error
            raise
        finally:
            self._going_on -= 1
            if not self._going_on and not self._has_ended:
                self._timer.start()

    def _is_meant(self, error: Exception) -> bool:
        """Whether the plugin lets a failure of the call through, or decides what becomes of the job."""
        if isinstance(error, Decision | NotEnqueued):
            return True
        came_of = (error, error.__cause__, error.__context__)
        return self._of_call is not None and any(link is self._of_call for link in came_of)
