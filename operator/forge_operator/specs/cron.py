"""What a ForgeCron says: which job is enqueued, and when."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, ClassVar

from forge_jobs import Group, Missed, Overflow
from forge_jobs.model import LONGEST_TENANT, MOST_PLACES
from forge_operator.specs.bounds import LONGEST_NAME, QUEUE_NAME, YEAR
from forge_operator.specs.fields import as_written, attempts, choice, flag, part, seconds, text, whole
from forge_operator.specs.section import Rule, Section, read

SCHEDULE = (
    "^(?i:@(hourly|daily|midnight|weekly|monthly|yearly|annually)|([0-9a-z*,/#?-]+ +){4,5}[0-9a-z*,/#?-]+)$"
)

SMALLEST_PRIORITY, LARGEST_PRIORITY = -32_768, 32_767
LONGEST_GROUP = 128


class MissedRunPolicy(StrEnum):
    """What becomes of fire times that passed while no worker was running."""

    SKIP = "Skip"
    LATEST = "Latest"
    ALL = "All"


class ConcurrencyPolicy(StrEnum):
    """Whether a job is enqueued while the previous one has not ended."""

    ALLOW = "Allow"
    FORBID = "Forbid"


class GroupOverflow(StrEnum):
    """What happens to a job for which its group has no place."""

    WAIT = "Wait"
    DROP_NEWEST = "DropNewest"
    CANCEL_RUNNING = "CancelRunning"


@dataclass(frozen=True, slots=True, kw_only=True)
class CronGroupSpec(Section):
    """The group of the job."""

    name: str = text("The group's name.", most=LONGEST_GROUP, required=True)
    limit: int | None = whole(
        "How many jobs of the group may be pending or in progress at once. Absent: what was said last, else 1.",
        least=1,
        most=MOST_PLACES,
    )
    overflow: GroupOverflow = choice(
        "What happens when the group has no place. Wait: the job waits for one. DropNewest: it is skipped, and counted in "
        "status.skipped. CancelRunning: it waits, and what is before it is cancelled.",
        GroupOverflow,
        default=GroupOverflow.WAIT,
    )

    @property
    def said(self) -> Group:
        """The group in the library's words."""
        return Group(self.name, self.limit, Overflow[self.overflow.name])


@dataclass(frozen=True, slots=True, kw_only=True)
class CronJobSpec(Section):
    """The job that is enqueued."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(has(self.group) && has(self.tenant))",
            holds=lambda job: job.group is None or job.tenant is None,
            message="group and tenant exclude each other",
            at=".tenant",
            reason="FieldValueForbidden",
        ),
    )

    queue: str = text(
        "The queue's name in the database.", most=LONGEST_NAME, pattern=QUEUE_NAME, required=True
    )
    kind: str = text(
        "The job's kind: the name of its handler.", most=128, pattern=r"^[^\s,]+$", required=True
    )
    args: Mapping[str, Any] = as_written("The handler's arguments by name.")
    priority: int | None = whole(
        "Jobs with smaller numbers start first. Absent: what the handler declares, else 0.",
        least=SMALLEST_PRIORITY,
        most=LARGEST_PRIORITY,
    )
    max_attempts: int | None = attempts(
        "Attempts until the job is dead. 1: no retry. -1: no limit. Absent: what the handler declares, else what "
        "the queue sets.",
        name="job.maxAttempts",
    )
    timeout: timedelta | None = seconds(
        "How long an attempt may take. Absent: what the handler declares, else what the queue sets.",
        least=1,
        most=YEAR,
    )
    group: CronGroupSpec | None = part(
        "The group of the job: of the jobs of a group only so many are in progress at once. Absent: none, "
        "whatever the handler declares, which the condition Synced tells.",
        CronGroupSpec,
        optional=True,
    )
    tenant: str | None = text(
        "On whose behalf the job is: the tenants of a queue take turns. Absent: nobody's, whatever the handler "
        "declares, which the condition Synced tells.",
        most=LONGEST_TENANT,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CronSpec(Section):
    """The spec of a ForgeCron."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.maxMissedRuns) || self.missedRunPolicy == 'All'",
            holds=lambda cron: cron.max_missed_runs is None or cron.missed_run_policy is MissedRunPolicy.ALL,
            message="maxMissedRuns is for missedRunPolicy All only",
            at=".maxMissedRuns",
            reason="FieldValueForbidden",
        ),
    )

    schedule: str = text(
        "When the job is enqueued: five fields (minute hour day month weekday), six with seconds first, or @hourly, "
        "@daily, @midnight, @weekly, @monthly, @yearly, @annually.",
        most=256,
        required=True,
        rules=(
            Rule(
                cel="!self.contains('TZ=')",
                holds=lambda schedule: "TZ=" not in schedule,
                message="the time zone belongs in timeZone, not in schedule",
            ),
            Rule(
                cel=f"self.matches('{SCHEDULE}')",
                holds=lambda schedule: re.fullmatch(SCHEDULE, schedule) is not None,
                message="schedule has five fields (minute hour day month weekday), six with seconds first, "
                "or is @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually",
            ),
        ),
    )
    time_zone: str = text(
        "The time zone of the schedule, an IANA name such as Europe/Berlin.",
        most=64,
        pattern=r"^[A-Za-z0-9_+/-]+$",
        default="UTC",
    )
    suspend: bool = flag("When true, nothing is enqueued.", default=False)
    missed_run_policy: MissedRunPolicy = choice(
        "What happens to fire times that passed while no worker was running. Skip: no job if more than a minute late. "
        "Latest: one job for the latest. All: one job for each.",
        MissedRunPolicy,
        default=MissedRunPolicy.LATEST,
    )
    max_missed_runs: int | None = whole(
        "How many missed fire times, newest first, missedRunPolicy All makes up for. Absent: 100.",
        least=1,
        most=10_000,
    )
    concurrency_policy: ConcurrencyPolicy = choice(
        "What happens when the previous job has not ended. Allow: the next one is enqueued too. Forbid: it is skipped, and "
        "counted in status.skipped.",
        ConcurrencyPolicy,
        default=ConcurrencyPolicy.ALLOW,
    )
    job: CronJobSpec = part("The job that is enqueued.", CronJobSpec, required=True)

    @property
    def missed(self) -> Missed:
        """The policy in the library's words."""
        return Missed(self.missed_run_policy.lower())

    @property
    def missed_limit(self) -> int:
        """How many missed times are made up for."""
        return 100 if self.max_missed_runs is None else self.max_missed_runs

    @property
    def overlap(self) -> bool:
        """Whether a job is enqueued while the previous one has not ended."""
        return self.concurrency_policy is ConcurrencyPolicy.ALLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgeCron:
    """A ForgeCron as a whole."""

    namespace: str
    name: str
    spec: CronSpec
    uid: str = ""
    generation: int = 0
    annotations: Mapping[str, str] = field(default_factory=dict)


def read_cron(resource: Mapping[str, Any]) -> ForgeCron:
    """Return what a ForgeCron, as the API server gave it, says.

    Raises InvalidSpec with one sentence, also for what an API server without CEL has let
    pass. Whether the schedule and the time zone make sense is only known when the cron is
    set in the database, which raises InvalidCron.
    """
    metadata = resource["metadata"]
    return ForgeCron(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        spec=read(CronSpec, resource.get("spec"), "spec"),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        annotations=metadata.get("annotations") or {},
    )
