"""Exits: SystemExit and KeyboardInterrupt out of a task that a handler made stay in that task.

An event loop ends when a task raises one of them, and with it the worker and all other
jobs. While anybody is in `contained`, tasks that are made within a job raise Exited
instead, and whoever runs the job is told, since it has failed.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

from forge_jobs.error_text import sentence
from forge_jobs.job import Claim
from forge_jobs.logs import current_job

Told = Callable[[Claim, BaseException], None]


class Exited(BaseException):
    """A task of a handler called `sys.exit`, or raised KeyboardInterrupt; that is its cause."""


@contextlib.contextmanager
def contained(told: Told) -> Iterator[None]:
    """Exits of tasks that handlers make in the running loop end only these; `told(claim, error)` hears of each."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    factory = before if isinstance(before, _Factory) else _Factory(before)
    if factory is not before:
        loop.set_task_factory(factory)
    factory.told.append(told)
    try:
        yield
    finally:
        factory.told.remove(told)
        if not factory.told and loop.get_task_factory() is factory:
            loop.set_task_factory(factory.before)


class _Factory:
    """Makes tasks as before, but of what a handler gives it one that contains exits."""

    def __init__(self, before: Callable[..., Any] | None) -> None:
        self.before = before
        self.told: list[Told] = []

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        job = current_job.get()
        if job is not None and self.told:
            coroutine = _Contained(coroutine, job[0], self)
        make = self.before or _task
        return make(loop, coroutine, **options)

    def tell(self, claim: Claim, error: BaseException) -> None:
        for told in list(self.told):
            told(claim, error)


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
    return asyncio.Task(coroutine, loop=loop, **options)


class _Contained(Coroutine[Any, Any, Any]):
    """A coroutine that raises Exited where its own would end the loop. In all else it is its own."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], claim: Claim, factory: _Factory) -> None:
        self._coroutine = coroutine
        self._claim = claim
        self._factory = factory

    def send(self, value: Any, /) -> Any:
        try:
            return self._coroutine.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise self._exited(error) from error

    def throw(self, *given: Any) -> Any:
        try:
            return self._coroutine.throw(*given)
        except (SystemExit, KeyboardInterrupt) as error:
            raise self._exited(error) from error

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # its name and frames, for who looks at tasks

    def _exited(self, error: BaseException) -> Exited:
        self._factory.tell(self._claim, error)
        kind = type(error).__name__
        said = sentence(error)
        return Exited(kind if said == kind else f"{kind}: {said}")
