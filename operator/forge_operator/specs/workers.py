"""What a ForgeQueue says of its workers: version, pods, scaling, rollout, drain."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, ClassVar

from forge_operator.specs.fields import (
    as_written,
    choice,
    flag,
    part,
    parts,
    seconds,
    text,
    texts,
    texts_by_name,
    whole,
)
from forge_operator.specs.section import Rule, Section

OWN_LABELS = "forge-jobs.dev/"
"""How the labels begin that only the operator may write."""

MOST_PODS = 10_000
DAY = 86_400


class Identity(StrEnum):
    """Which change makes a new version."""

    TEMPLATE = "Template"
    VERSION = "Version"


class RolloutStrategy(StrEnum):
    """How a new version takes over."""

    ALL_AT_ONCE = "AllAtOnce"
    PROGRESSIVE = "Progressive"
    MANUAL = "Manual"


class OnDrainTimeout(StrEnum):
    """What becomes of jobs that still run when a drain has taken too long."""

    WAIT = "Wait"
    TERMINATE = "Terminate"


class BudgetChoice(StrEnum):
    """Which pods a PodDisruptionBudget is about."""

    ALL_PODS = "AllPods"
    LONG_JOBS = "LongJobs"
    NONE = "None"


class RestartPolicy(StrEnum):
    """Whether containers are started again; of a Deployment's always."""

    ALWAYS = "Always"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUpSpec(Section):
    """How fast pods may be added."""

    stabilization_window: timedelta = seconds(
        "The smallest number of pods wanted within this time counts.", most=3600, default=0
    )
    max_percent: int = whole(
        "Pods that may be added per period, in percent of the pods at its start, or maxPods, whichever is more.",
        least=1,
        most=10_000,
        default=100,
    )
    max_pods: int = whole("Pods that may be added per period.", least=1, most=MOST_PODS, default=4)
    period: timedelta = seconds("The length of a period.", least=5, most=1800, default=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleDownSpec(Section):
    """How fast pods may be removed."""

    stabilization_window: timedelta = seconds(
        "The largest number of pods wanted within this time counts.", most=3600, default=300
    )
    max_percent: int = whole(
        "Pods that may be removed per period, in percent of the pods at its start, or maxPods, whichever is more.",
        least=1,
        most=100,
        default=50,
    )
    max_pods: int = whole("Pods that may be removed per period.", least=1, most=MOST_PODS, default=4)
    period: timedelta = seconds("The length of a period.", least=5, most=1800, default=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingSpec(Section):
    """The number of pods follows the work."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.minReplicas <= self.maxReplicas",
            holds=lambda scaling: scaling.min_replicas <= scaling.max_replicas,
            message="minReplicas must be at most maxReplicas",
            at=".minReplicas",
        ),
        Rule(
            cel="!has(self.fallbackReplicas) || self.fallbackReplicas <= self.maxReplicas",
            holds=lambda scaling: (scaling.fallback_replicas or 0) <= scaling.max_replicas,
            message="fallbackReplicas must be at most maxReplicas",
            at=".fallbackReplicas",
        ),
    )

    min_replicas: int = whole(
        "The fewest pods. 0: none while there is no work; the next job then waits for a pod to start.",
        most=MOST_PODS,
        default=0,
    )
    max_replicas: int = whole("The most pods.", least=1, most=MOST_PODS, required=True)
    target_latency: timedelta = seconds(
        "How long a job should wait at most before it starts.", least=1, most=DAY, default=30
    )
    target_utilization_percent: int = whole(
        "What share of the slots should be in use under a steady load; the rest is headroom.",
        least=10,
        most=100,
        default=75,
    )
    activation_backlog: int = whole(
        "How many jobs must wait before the first pod is started.", least=1, most=1_000_000, default=1
    )
    idle: timedelta = seconds(
        "How long there must be no work before the last pods are removed.", most=30 * DAY, default=300
    )
    prewarm: timedelta = seconds(
        "How long before a scheduled job is due its pods are started.", most=3600, default=0
    )
    tolerance_percent: int = whole(
        "A change of fewer pods than this, in percent of the present ones, is not made.", most=100, default=10
    )
    fallback_replicas: int | None = whole(
        "The fewest pods while the database has not answered for 30 s. Absent: the number does not change.",
        most=MOST_PODS,
    )
    scale_up: ScaleUpSpec = part("How fast pods may be added.", ScaleUpSpec)
    scale_down: ScaleDownSpec = part("How fast pods may be removed.", ScaleDownSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec(Section):
    """A step of a progressive rollout."""

    weight_percent: int = whole("The new version's share of the slots.", least=1, most=99, required=True)
    pause: timedelta = seconds(
        "How long the version keeps this share before the next step.", least=30, most=7 * DAY, required=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortSpec(Section):
    """When a progressive rollout is aborted by itself, and when a step of it is held."""

    max_failure_percent: int = whole(
        "Abort when more of the new version's jobs than this fail, time out, are lost with their worker or hang, "
        "and twice as many as of the old version's. 100: never.",
        least=1,
        most=100,
        default=50,
    )
    min_samples: int = whole(
        "How many jobs of the new version must have ended in a step before it is judged. A step with fewer is held.",
        least=1,
        most=1_000_000,
        default=20,
    )
    max_restarts: int = whole(
        "Abort when containers of the new version were restarted more often than this since it has a share, "
        "or more workers than this were lost, and twice as many per pod as of the old version.",
        most=1_000_000,
        default=2,
    )
    max_slowdown_factor: int = whole(
        "Abort when the median duration of the new version's jobs is more than this many times that of the old "
        "version's.",
        least=2,
        most=1_000_000,
        default=5,
    )
    hang_factor: int = whole(
        "A job hangs when it has run for more than a minute, and this many times as long as the 99th percentile of the "
        "old version's jobs.",
        least=2,
        most=1_000_000,
        default=10,
    )
    inconclusive_hold: timedelta = seconds(
        "How long a step may be held for want of ended jobs before the rollout is aborted. 0: for ever.",
        most=365 * DAY,
        default=0,
    )
    hand_back: timedelta = seconds(
        "How long jobs of an aborted version may go on before its pods are stopped, with their grace period. "
        "Jobs that have not ended by then go back to the queue, and the attempt does not count.",
        most=DAY,
        default=30,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec(Section):
    """How a new version takes over from the old one."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.strategy != 'Progressive' || (has(self.steps) && size(self.steps) > 0)",
            holds=lambda rollout: (
                rollout.strategy is not RolloutStrategy.PROGRESSIVE or len(rollout.steps) > 0
            ),
            message="strategy Progressive needs steps",
            at=".steps",
            reason="FieldValueRequired",
        ),
        Rule(
            cel="!has(self.steps) || self.steps.map(step, step.weightPercent).isSorted()",
            holds=lambda rollout: (
                [step.weight_percent for step in rollout.steps]
                == sorted(step.weight_percent for step in rollout.steps)
            ),
            message="steps must be in the order of their weightPercent",
            at=".steps",
        ),
    )

    strategy: RolloutStrategy = choice(
        "AllAtOnce: a new version gets all new jobs as soon as it is ready. Progressive: its share of the slots grows "
        "by steps. Manual: it waits for the annotation forge-jobs.dev/promote with its id.",
        RolloutStrategy,
        default=RolloutStrategy.ALL_AT_ONCE,
    )
    steps: tuple[StepSpec, ...] = parts(
        "The shares of the slots that the new version gets in turn, in a progressive rollout. After the last it gets all.",
        StepSpec,
        key="weightPercent",
        most=20,
    )
    abort: AbortSpec = part(
        "When a progressive rollout is aborted by itself, and when a step of it is held.", AbortSpec
    )
    min_ready: timedelta = seconds(
        "How long the pods of a new version must be ready before it gets jobs.", most=3600, default=5
    )
    progress_deadline: timedelta = seconds(
        "How long a new version may take to get ready. Then it fails, and the old one goes on.",
        least=30,
        most=DAY,
        default=600,
    )
    rollback_window: timedelta = seconds(
        "A version that served within this time takes over again at once, without steps.",
        most=30 * DAY,
        default=3600,
    )
    max_active_versions: int = whole(
        "How many versions may have workers at the same time, draining ones included.",
        least=2,
        most=20,
        default=4,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainSpec(Section):
    """How an old version ends."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.onTimeout != 'Terminate' || self.timeoutSeconds > 0",
            holds=lambda drain: drain.on_timeout is not OnDrainTimeout.TERMINATE or bool(drain.timeout),
            message="onTimeout Terminate needs timeoutSeconds, since 0 waits for ever",
            at=".timeoutSeconds",
            reason="FieldValueRequired",
        ),
    )

    timeout: timedelta = seconds(
        "How long an old version may drain before onTimeout applies. 0: for ever.",
        most=365 * DAY,
        default=0,
    )
    on_timeout: OnDrainTimeout = choice(
        "What happens when a drain takes longer than timeoutSeconds. Wait: a condition says so, nothing else. Terminate: the pods are stopped, and jobs that "
        "have not ended within their grace period go back to the queue.",
        OnDrainTimeout,
        default=OnDrainTimeout.WAIT,
    )
    shrink_idle: bool = flag(
        "Whether idle pods of a draining version are removed while others of it still run jobs.", default=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SunsetSpec(Section):
    """What becomes of an old version that has drained."""

    scale_down_delay: timedelta = seconds(
        "How long its pods stay, for a quick rollback.", most=30 * DAY, default=60
    )
    delete_delay: timedelta = seconds(
        "How long its Deployment stays without pods.", most=365 * DAY, default=3600
    )
    history_limit: int = whole(
        "How many versions without a Deployment are kept in the history.", most=20, default=2
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptionSpec(Section):
    """How pods are protected when nodes are drained or removed."""

    budget: BudgetChoice = choice(
        "Which evictions the PodDisruptionBudget prevents. AllPods: of all pods that may have jobs, at most maxUnavailable are "
        "evicted at a time. LongJobs: pods that have run a job for longAfterSeconds are not evicted, all others are. None: there is no budget.",
        BudgetChoice,
        default=BudgetChoice.ALL_PODS,
    )
    max_unavailable: int = whole(
        "How many pods may be evicted at a time, with budget AllPods. 0: none.",
        most=MOST_PODS,
        default=1,
    )
    mark_pods: bool = flag(
        "Whether pods that have run a job for longAfterSeconds carry annotations that tell the cluster autoscaler and Karpenter to leave "
        "their nodes alone, and that make other pods go first.",
        default=True,
    )
    long_after: timedelta = seconds(
        "How long a job must have run before its pod is protected.",
        least=5,
        most=DAY,
        default=60,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerShape(Section):
    """What must be said of a container."""

    OPEN: ClassVar[bool] = True

    name: str = text("The container's name.", most=63, required=True)
    image: str = text("The container's image.", most=1024, required=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodShape(Section):
    """What must be said of a pod."""

    OPEN: ClassVar[bool] = True

    containers: tuple[ContainerShape, ...] = parts(
        "The pod's containers. The first is the worker.", ContainerShape, key="name", most=20, least=1
    )
    restart_policy: RestartPolicy | None = choice("Always, as for all Deployments.", RestartPolicy)
    termination_grace_period: timedelta | None = seconds(
        "The grace period of a pod: how long running jobs may go on when it is stopped. Absent: 120.",
        least=5,
        most=DAY,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateMetadataShape(Section):
    """What may be said of a pod's metadata."""

    labels: Mapping[str, str] = texts_by_name("Labels of the pods.", items=64, most=63)
    annotations: Mapping[str, str] = texts_by_name("Annotations of the pods.", items=64, most=65_536)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateShape(Section):
    """What a pod template must look like; all else is for the API server to judge."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.metadata) || !has(self.metadata.labels)"
            f" || self.metadata.labels.all(name, !name.startsWith('{OWN_LABELS}'))",
            holds=lambda template: (
                template.metadata is None
                or not any(name.startswith(OWN_LABELS) for name in template.metadata.labels)
            ),
            message=f"labels that begin with {OWN_LABELS} are the operator's own",
            at=".metadata.labels",
            reason="FieldValueForbidden",
        ),
    )

    # Without defaults: what a template says is kept as it was written.
    metadata: TemplateMetadataShape | None = part(
        "Labels and annotations of the pods.", TemplateMetadataShape, optional=True
    )
    spec: PodShape = part("The pods, as in a Deployment.", PodShape, required=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersSpec(Section):
    """The workers that serve a queue."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(has(self.replicas) && has(self.autoscaling))",
            holds=lambda workers: workers.replicas is None or workers.autoscaling is None,
            message="replicas and autoscaling exclude each other",
            at=".replicas",
            reason="FieldValueForbidden",
        ),
    )

    version: str = text(
        "The version of the handlers: a number, a tag, a commit. A new value is rolled out beside the present version.",
        most=63,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._+-]*[A-Za-z0-9])?$",
        required=True,
    )
    queues: tuple[str, ...] = texts(
        "Other queues that these workers serve too: those of ForgeQueues without workers.",
        items=64,
        most=63,
        pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$",
    )
    name_prefix: str | None = text(
        "The prefix of the Deployments' names. Absent: the name of this object.",
        most=20,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
    )
    identity: Identity = choice(
        "Which change makes a new version. Template: of version or template, so every change of the template is rolled "
        "out beside the present pods. Version: of version only; a change of the template replaces the pods in place.",
        Identity,
        default=Identity.TEMPLATE,
    )
    slots: int = whole("How many jobs a pod runs at once.", least=1, most=10_000, default=10)
    replicas: int | None = whole(
        "The number of pods; kubectl scale and a HorizontalPodAutoscaler change it. "
        "Absent: what autoscaling decides, or 1 without it.",
        most=MOST_PODS,
    )
    autoscaling: AutoscalingSpec | None = part(
        "The number of pods follows the work. Not together with replicas.",
        AutoscalingSpec,
        optional=True,
    )
    rollout: RolloutSpec = part("How a new version takes over from the old one.", RolloutSpec)
    drain: DrainSpec = part("How an old version ends.", DrainSpec)
    sunset: SunsetSpec = part("What becomes of an old version that has drained.", SunsetSpec)
    disruption: DisruptionSpec = part(
        "How pods are protected when nodes are drained or removed.", DisruptionSpec
    )
    template: Mapping[str, Any] = as_written("The pods, as in a Deployment.", TemplateShape)
