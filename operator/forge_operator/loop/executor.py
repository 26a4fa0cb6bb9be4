"""Carries out plans: the actions of each strand up to the first that fails."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from forge_jobs import ForgeError
from forge_jobs.errors import PastEpoch
from forge_operator.cluster.api import Kube
from forge_operator.cluster.errors import KubeError, Unreachable
from forge_operator.cluster.events import EventRecorder, Subject
from forge_operator.cluster.lease import NotLeading
from forge_operator.database.link import DatabaseLink
from forge_operator.loop.cluster_actor import ClusterActor
from forge_operator.loop.database_actor import DatabaseActor
from forge_operator.loop.halt import OutOfDate, Refused
from forge_operator.plan.actions import Action, RowAction, VersionAction
from forge_operator.plan.plan import Strand
from forge_operator.state.memory import Memory, Rejection, StrandFailure

FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=1), timedelta(seconds=60)
"""When a strand that failed is tried again; twice as late each time."""


@dataclass(frozen=True, slots=True)
class Execution:
    """How far a plan was carried out."""

    memory: Memory
    actions: tuple[Action, ...] = ()  # that were done
    stopped_by: str | None = None  # what was otherwise than planned; None: nothing
    failed: tuple[StrandFailure, ...] = ()  # just now


class Executor:
    """Carries out plans. `may_write` is asked before each action."""

    def __init__(
        self,
        kube: Kube,
        link: DatabaseLink,
        recorder: EventRecorder,
        *,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._link, self._may_write, self._clock = link, may_write, clock
        self._cluster, self._database = ClusterActor(kube, recorder), DatabaseActor(link)

    async def carry_out(self, subject: Subject, strands: Sequence[Strand], memory: Memory) -> Execution:
        """Of each strand the actions are done, in their order, up to the first that was not.

        A strand that failed is left alone for longer each time, and its failure is in the
        memory that is returned. Raises Unreachable and NotLeading: then nothing more is done.
        """
        progress = _Progress(memory)
        failures = memory.failures
        progress.memory = replace(memory, failures={})
        for strand in strands:
            before = failures.get(strand.key)
            if not strand.actions:
                continue
            if before is not None and self._clock() < before.again_at:
                progress.remember(strand, before)
                continue
            try:
                await self._carry_out(subject, strand, progress)
            except PastEpoch as error:
                self._link.is_past(error.epoch)
                progress.stopped_by = str(error)
                break
            except (Unreachable, NotLeading):
                raise
            except (KubeError, ForgeError) as error:
                progress.failed.append(_failure(str(error), before, self._clock()))
                progress.remember(strand, progress.failed[-1])
        return Execution(progress.memory, tuple(progress.done), progress.stopped_by, tuple(progress.failed))

    async def _carry_out(self, subject: Subject, strand: Strand, progress: "_Progress") -> None:
        for action in strand.actions:
            if not self._may_write():
                raise NotLeading("This operator no longer holds the Lease, so nothing is written.")
            try:
                await self._do(subject, action)
            except OutOfDate as stop:
                progress.stopped_by = str(stop)
                return
            except Refused as refused:
                progress.stopped_by = refused.message
                rejection = Rejection(refused.message, datetime.now(UTC))
                rejections = {**progress.memory.rejections, refused.rejection: rejection}
                progress.memory = replace(progress.memory, rejections=rejections)
                return
            progress.done.append(action)

    async def _do(self, subject: Subject, action: Action) -> None:
        if isinstance(action, RowAction):
            await self._database.act_on_row(action)
        elif isinstance(action, VersionAction):
            await self._database.act_on_version(action)
        else:
            await self._cluster.act(subject, action)


@dataclass(slots=True)
class _Progress:
    """How far a plan has been carried out so far."""

    memory: Memory
    done: list[Action] = field(default_factory=list)
    stopped_by: str | None = None
    failed: list[StrandFailure] = field(default_factory=list)

    def remember(self, strand: Strand, failure: StrandFailure) -> None:
        """The strand failed, as the next plan will know."""
        self.memory = replace(self.memory, failures={**self.memory.failures, strand.key: failure})


def _failure(message: str, before: StrandFailure | None, now: datetime) -> StrandFailure:
    """Return the failure of a strand, after the one before if there was one."""
    tries = 1 if before is None else before.tries + 1
    wait = min(FIRST_RETRY * 2 ** min(tries - 1, 10), LONGEST_RETRY)
    return StrandFailure(message, tries, now + wait)
