"""`forge-jobs worker`: run the jobs of a user's program."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import click

from forge_jobs.cli import program, values
from forge_jobs.cli.asking import agreed, can_ask
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import environment
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.errors import InvalidInput, StorageUnavailable
from forge_jobs.forge import Forge
from forge_jobs.rooms import unsearched
from forge_jobs.rules import names
from forge_jobs.settings.environment import Settings
from forge_jobs.storage.outage import Outage, unless
from forge_jobs.system import exits, posix, stop_signals
from forge_jobs.system.own_task import OwnTask, carried_through
from forge_jobs.system.process_end import end_within
from forge_jobs.telemetry import logs
from forge_jobs.telemetry.events import Event, WorkerStarted
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.processes import (
    READY,
    WORN,
    finish_when_replaced,
    has_parent,
    python_command,
    run_processes,
    stop_with_parent,
    tell_parent,
)
from forge_jobs.worker.wear import FINISHES_WITHIN, Wear, WearLimits

if TYPE_CHECKING:
    from forge_jobs.worker.worker import Worker

MOST_PROCESSES = 256
MOST_CONCURRENCY = 10_000
END = 5.0  # seconds that what handlers left behind has at most, once the worker has ended
LAST_END = 9.5  # seconds after the grace, when all has to have ended


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """From which severity on lines are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Options of one worker process. None: the settings decide."""

    app: str | None
    queues: tuple[str, ...] | None
    concurrency: int | None
    grace: timedelta | None
    heartbeat: timedelta | None
    stale: timedelta | None
    prefix: str | None
    version: str | None
    metrics_port: int
    metrics_host: str
    log_format: str
    log_level: str
    until_empty: bool
    wear: WearLimits = field(default_factory=WearLimits)

    def arguments(self, index: int) -> list[str]:
        """Return the arguments of `forge-jobs worker` that make the process `index` do this."""
        seconds = {"--grace": self.grace, "--heartbeat": self.heartbeat, "--stale": self.stale}
        options = {
            "--queues": None if self.queues is None else ",".join(self.queues),
            "--concurrency": self.concurrency,
            **{name: None if value is None else value.total_seconds() for name, value in seconds.items()},
            "--prefix": self.prefix,
            "--worker-version": self.version,
            # Two processes cannot listen on one port.
            "--metrics-port": self.metrics_port + index if self.metrics_port > 0 else self.metrics_port,
            "--metrics-host": self.metrics_host,
            "--log-format": self.log_format,
            "--log-level": self.log_level.lower(),
            "--max-jobs": self.wear.jobs,
            "--max-rss": self.wear.memory,
        }
        options_set = [f"{name}={value}" for name, value in options.items() if value is not None]
        return [*options_set, *(["--until-empty"] if self.until_empty else []), "--", str(self.app)]


def register(app: CommandGroup) -> None:
    """`app` has the command."""
    command(app, "worker")(worker)


def worker(
    call: Call,
    app: Annotated[
        str | None,
        Argument(
            help="The program: module:attribute of its Forge, like shop:forge. [default: FORGE_APP]",
            metavar="[APP]",
        ),
    ] = None,
    queues: Annotated[
        str | None,
        Option(metavar="NAMES", help="The queues to serve, separated by commas. [default: FORGE_QUEUES]"),
    ] = None,
    concurrency: Annotated[
        int | None,
        Option(
            metavar="N",
            help="How many jobs each process runs at once. [default: 10]",
            parser=values.whole("--concurrency", least=1, most=MOST_CONCURRENCY),
        ),
    ] = None,
    processes: Annotated[
        int,
        Option(
            metavar="N",
            help="How many processes to start, each a worker; only 1 on SQLite.",
            parser=values.whole("--processes", least=1, most=MOST_PROCESSES),
        ),
    ] = 1,
    grace: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--grace"),
            help="How long running jobs may go on when the worker is stopped. [default: 25s]",
        ),
    ] = None,
    max_jobs: Annotated[
        int | None,
        Option(
            metavar="N",
            help="Replace a process once it has run so many jobs, one process after the other.",
            parser=values.whole("--max-jobs", least=1),
        ),
    ] = None,
    max_rss: Annotated[
        int | None,
        Option(
            metavar="SIZE",
            help="Replace a process that holds more memory than this, like 512MiB or 2GiB.",
            parser=values.size("--max-rss"),
        ),
    ] = None,
    until_empty: Annotated[
        bool, Option("--until-empty", help="Stop when no job is pending or running any more.")
    ] = False,
    reload: Annotated[
        bool,
        Option("--reload", help="Start anew when a Python file below this folder changes; for development."),
    ] = False,
    metrics_port: Annotated[
        int | None,
        Option(
            metavar="PORT",
            parser=values.whole("--metrics-port", least=-1, most=65_535),
            help="The port of /metrics, /healthz and /readyz; 0: any free port, -1: none. With --processes, each takes the next port. [default: -1]",
        ),
    ] = None,
    metrics_host: Annotated[str, Option(metavar="HOST", help="The address to serve them on.")] = "0.0.0.0",
    log_format: Annotated[
        LogFormat | None,
        Option(
            metavar="|".join(LogFormat),
            help="The format of log lines on stderr. [default: text]",
            parser=values.one_of("--log-format", LogFormat),
        ),
    ] = None,
    log_level: Annotated[
        LogLevel | None,
        Option(
            metavar="LEVEL",
            help=f"The least severe level to log: {', '.join(LogLevel)}. [default: info]",
            parser=values.one_of("--log-level", LogLevel),
        ),
    ] = None,
    heartbeat: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--heartbeat", least=timedelta(milliseconds=100)),
            help="How often the worker reports that it is alive. [default: 5s]",
        ),
    ] = None,
    stale: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--stale"),
            help="A worker that has been silent for this long is lost: others take its jobs. [default: 30s]",
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        Option(
            metavar="TEXT",
            help="The prefix of the worker's name, {prefix}-worker-{version}-{id}. [default: FORGE_WORKER_PREFIX]",
        ),
    ] = None,
    worker_version: Annotated[
        str | None,
        Option(metavar="TEXT", help="The version in the worker's name. [default: FORGE_WORKER_VERSION]"),
    ] = None,
) -> Report | None:
    """Run jobs until SIGTERM or Ctrl-C, which let running jobs finish within the grace time.

    Options that are not given are taken from the environment: FORGE_CONCURRENCY, FORGE_GRACE_SECONDS,
    FORGE_METRICS_PORT, FORGE_LOG_FORMAT, FORGE_LOG_LEVEL, FORGE_HEARTBEAT_SECONDS, FORGE_STALE_SECONDS.
    """
    posix.require("A worker")
    named = environment(call)  # so that the program's Forge finds the database that the command names
    for variable in os.environ.keys() - named.keys():
        del os.environ[variable]
    os.environ.update(named)
    is_child = has_parent()  # asked before anything of the program runs, and starts processes
    settings = Settings.load()
    plan = WorkerOptions(
        app=app or settings.app,
        queues=None if queues is None else names.queues(queues),
        concurrency=concurrency,
        grace=grace,
        heartbeat=heartbeat,
        stale=stale,
        prefix=prefix,
        version=worker_version,
        metrics_port=settings.metrics_port if metrics_port is None else metrics_port,
        metrics_host=metrics_host,
        log_format="json" if call.as_json else log_format or settings.log_format,
        log_level=(log_level or settings.log_level).upper(),
        until_empty=until_empty,
        wear=WearLimits(max_jobs, max_rss),
    )
    if reload:
        _require_one_process(processes, plan)
        if code := _run_reloading(plan):
            raise click.exceptions.Exit(code)
        return Report({"stopped": True}) if call.as_json else None
    if can_ask(call):
        asyncio.run(_ask_for_new_queues(program.load(plan.app), plan.queues or settings.queues))
    if processes == 1 and (not plan.wear or is_child):
        run_plan(plan)
    elif code := _run_many(plan, processes):
        raise click.exceptions.Exit(code)
    return Report({"stopped": True}) if call.as_json else None


async def _ask_for_new_queues(forge: Forge, queues: Sequence[str]) -> None:
    """No queue is made by a slip of the hand. Raises InvalidInput when the name of another was meant."""
    with contextlib.suppress(StorageUnavailable):  # the worker waits for its database; then it warns instead
        async with forge:
            for name, nearest in (await forge.new_queues(*queues)).items():
                if nearest is None:
                    continue
                if not agreed(
                    f"There is no queue {name}, but there is a queue {nearest}. Make queue {name}?"
                ):
                    raise InvalidInput(f"Queue {name!r} was not made; did you mean {nearest!r}?")
                await forge.queues.ensure(name)


def run_plan(plan: WorkerOptions) -> None:
    """Run one worker in this process until it is stopped."""
    with unsearched():
        from forge_jobs.worker.worker import Worker  # which few commands need

    forge = program.load(plan.app)
    worker = Worker(
        forge,
        queues=plan.queues,
        concurrency=plan.concurrency,
        grace=plan.grace,
        heartbeat=plan.heartbeat,
        stale=plan.stale,
        prefix=plan.prefix,
        version=plan.version,
        metrics_port=plan.metrics_port,
        metrics_host=plan.metrics_host,
    )
    # Whoever started this process may ignore its children; no exit code would be known here then.
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _log(forge, plan)
    for warning in forge.settings.unknown:
        logs.logger.warning(warning)
    exits.run(_run(worker, plan.until_empty, plan.wear))


def _log(forge: Forge, plan: WorkerOptions) -> None:
    """Lines of this process go to stderr as the command line says."""
    _log_to(forge.telemetry, plan)


def _log_to(telemetry: Telemetry, plan: WorkerOptions) -> None:
    log_format = cast(Literal["text", "json"], plan.log_format)
    logs.subscribe(telemetry, level=plan.log_level, format=log_format, stream=sys.stderr)


async def _run(worker: "Worker", until_empty: bool, wear: WearLimits) -> None:
    stop_with_parent(lambda: worker.stop("its parent is gone"))
    finish_when_replaced(lambda: worker.stop("it is replaced", grace=max(worker.grace, FINISHES_WITHIN)))
    wearing = _wearing(worker, wear)
    working = OwnTask(
        worker.run(until_empty=until_empty, handle_signals=True), worker.forge.telemetry, name="worker"
    )
    await carried_through(working)  # only signals end it
    wearing.cancel()
    end_within(_seconds_left(worker), 1 if working.exception() else 0, _say_last)
    working.result()
    if worker.left_behind:  # Python would wait for them, for ever perhaps; their jobs are in other hands
        _say_last(f"{worker.left_behind} handlers did not stop when told to; the process ends now.")
        os._exit(0)


def _wearing(worker: "Worker", limits: WearLimits) -> "asyncio.Task[None]":
    """Return the task that tells the parent process when this one is at work, and when it is worn."""
    wear = Wear(limits)

    def hear(event: Event) -> None:
        wear.hear(event)
        if isinstance(event, WorkerStarted):
            tell_parent(READY)

    async def watch() -> None:
        if limits:
            tell_parent(WORN, await wear.worn())

    worker.forge.telemetry.subscribe(hear)
    return asyncio.ensure_future(watch())


def _seconds_left(worker: "Worker") -> float:
    """Return how long the process may take to end, so that it is gone before its supervisor kills it."""
    heard_at = stop_signals.heard_at
    if heard_at is None:
        return END
    return min(END, max(1.0, heard_at + worker.grace.total_seconds() + LAST_END - time.monotonic()))


def _say_last(line: str) -> None:
    logs.logger.warning(line)
    logs.flush()


def _run_many(plan: WorkerOptions, processes: int) -> int:
    """Run as many workers as that, each in a process of its own; return the exit code."""
    forge = program.load(plan.app)
    if processes > 1 and not forge.storage.shared:
        raise InvalidInput(f"--processes is {processes}, allowed on SQLite is 1, since it has one writer.")
    _log(forge, plan)
    commands = [python_command("worker", *plan.arguments(index)) for index in range(processes)]
    return asyncio.run(_supervise(forge, commands))


def _require_one_process(processes: int, plan: WorkerOptions) -> None:
    for name, is_given in (
        ("--processes", processes > 1),
        ("--until-empty", plan.until_empty),
        ("--max-jobs or --max-rss", bool(plan.wear)),
    ):
        if is_given:
            raise InvalidInput(f"--reload is given together with {name}, allowed is one of them.")
    if plan.app is None:
        program.load(None)  # raises


def _run_reloading(plan: WorkerOptions) -> int:
    """Run one worker in a process of its own, and another one whenever its program changes; return the exit code."""
    from forge_jobs.worker.reloading import run_reloading  # which few need

    _log_to(Telemetry(), plan)
    command = python_command("worker", *plan.arguments(0))
    return asyncio.run(run_reloading(command, Path.cwd(), say=logs.logger.warning))


async def _supervise(forge: Forge, commands: Sequence[Sequence[str]]) -> int:
    """Run the commands once the database is there, so that what it refuses is said once, and ends all."""
    asked = asyncio.Event()
    with stop_signals.heard(lambda name: asked.set()):
        opening = Outage("opening the database", forge.telemetry).until_answered(forge.open)
        await unless(asked, opening)
        await forge.close()
    return 0 if asked.is_set() else await run_processes(commands, say=logs.logger.warning)
