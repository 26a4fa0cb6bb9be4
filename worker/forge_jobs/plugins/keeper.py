"""Keeper: one thing that is made once, kept, and closed by the task that made it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import Context as Variables
from typing import Any


class Keeper:
    """Makes a thing by `make`, which enters what is to be closed with the stack; `made(keeper)` is called when it is there."""

    def __init__(
        self,
        name: str,
        make: Callable[[AsyncExitStack], Awaitable[Any]],
        made: Callable[["Keeper"], object],
    ) -> None:
        self.name = name  # for people
        self._make, self._made = make, made
        self._value: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._end = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the thing could not be made."""
        return self._value.done() and (self._value.cancelled() or self._value.exception() is not None)

    def start(self) -> None:
        """The thing is being made, in no job's context: it is for all of them."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._keep(), name=self.name, context=Variables())

    async def value(self) -> Any:
        """Return the thing once it is there. Raises what making it raised."""
        return await asyncio.shield(self._value)

    async def close(self) -> None:
        """The thing is closed; one that is not there yet is not made any more. Raises what closing it raises."""
        assert self._task is not None
        self._end.set()
        if not self._value.done():
            self._task.cancel()
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            self._task.cancel()
            if not self._task.done():  # it is this call that was cancelled
                raise

    async def _keep(self) -> None:
        async with AsyncExitStack() as stack:
            try:
                value = await self._make(stack)
            except BaseException as error:  # whatever it is concerns those who wait for the thing
                if not self._value.done():
                    self._value.set_exception(error)
                    self._value.exception()  # nobody may wait any more
                return
            self._value.set_result(value)
            self._made(self)
            await self._end.wait()
