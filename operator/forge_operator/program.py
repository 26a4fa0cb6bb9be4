"""The operator as a program: waits for the Lease, leads, and ends so that another one can go on."""

import asyncio
import logging
import signal
import sys
from contextlib import suppress

from forge_jobs import ForgeError, InvalidSetting
from forge_jobs.telemetry import JsonFormatter, TextFormatter
from forge_operator.cluster.api import Kube, connected, own_namespace
from forge_operator.cluster.errors import KubeError
from forge_operator.cluster.lease import Candidate, LeaseTimes
from forge_operator.environment import Environment
from forge_operator.loop.leader import LeadingOperator, suited
from forge_operator.metrics.health import Pulse, server
from forge_operator.metrics.operator import OperatorMetrics

logger = logging.getLogger("forge_operator")

CLEAN, FAILED, USAGE = 0, 1, 2
"""Exit codes: asked to stop, cannot go on, told something wrong."""

STOP_SECONDS = 20.0
"""What stopping may take; Kubernetes kills after 30."""


class Operator:
    """One process: a follower at first, then perhaps the leader."""

    def __init__(self, environment: Environment, kube: Kube, *, times: LeaseTimes | None = None) -> None:
        self._environment, self._kube = environment, kube
        self.metrics = OperatorMetrics()
        self.candidate = Candidate(
            kube,
            environment.namespace,
            environment.lease,
            environment.identity,
            times=times,
            failed=lambda error: logger.warning("The Lease cannot be read or written: %s", error),
        )
        self.leader: LeadingOperator | None = None
        self.metrics.leader.set_function(lambda: float(self.candidate.holds))

    def why_not_ready(self) -> str | None:
        """Return one sentence, or None when it leads and has seen all objects, or follows a leader."""
        if not self.candidate.answered:
            return "It is not known yet who holds the Lease."
        if self.candidate.holds and (self.leader is None or not self.leader.has_seen_all):
            return "Not all objects have been listed yet."
        return None

    async def run(self) -> None:
        """Follow, then lead. Returns when the Lease was lost; raises when something broke."""
        logger.info("%s waits for the Lease %s", self.candidate.identity, self._environment.lease)
        await self.candidate.take()
        try:
            await self._lead()
        finally:
            await asyncio.shield(self.candidate.release())

    async def _lead(self) -> None:
        logger.info("%s leads", self.candidate.identity)
        keeping = asyncio.create_task(self.candidate.keep())
        leading = asyncio.create_task(self._act())
        try:
            await asyncio.wait({keeping, leading}, return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                await leading
        finally:
            # What acts ends first, and only then is the Lease given away.
            for task in (leading, keeping):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):  # told above, or on the way out
                    await task

    async def _act(self) -> None:
        settings = await suited(self._kube, self._environment)
        self.leader = LeadingOperator(self._environment, self._kube, self.candidate, self.metrics, settings)
        await self.leader.run()


async def operate(environment: Environment) -> int:
    """Run until a signal comes or the Lease is lost; return the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with connected() as kube:
        operator, pulse = Operator(environment, kube), Pulse()
        health = server(environment.host, environment.port, pulse, operator, operator.metrics)
        port = await health.start()
        logger.info("Health and metrics are on port %d", port)
        beating = asyncio.create_task(pulse.run(operator.metrics))
        try:
            return await _until(stop, operator)
        finally:
            pulse.is_exiting = not stop.is_set()  # one that was asked to stop is alive until it has
            beating.cancel()
            await health.stop()


async def _until(stop: asyncio.Event, operator: Operator) -> int:
    running = asyncio.create_task(operator.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not running.done():
        logger.info("The operator was asked to stop")
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=STOP_SECONDS)
        return CLEAN if done else FAILED
    error = running.exception()
    if error is not None:
        logger.critical("The operator cannot go on", exc_info=error)
    else:
        logger.critical("The Lease was lost: another operator may lead now")
    return FAILED


def main() -> int:
    """Run the operator as the environment says; return the exit code."""
    try:
        environment = Environment.load(namespace=own_namespace())
    except InvalidSetting as error:
        print(error, file=sys.stderr)
        return USAGE
    set_up_logs(environment)
    try:
        return asyncio.run(operate(environment))
    except (KubeError, ForgeError) as error:
        print(error, file=sys.stderr)
        return FAILED


def set_up_logs(environment: Environment) -> None:
    """Every line of the program goes to stderr, as text or JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if environment.log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(max(logging.INFO, logging.getLevelName(environment.log_level)))
    logging.getLogger("forge_operator").setLevel(environment.log_level)
    logging.getLogger("kopf").setLevel(logging.WARNING)
