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
    """What makes a version another one."""

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

    stabilization_window: timedelta = seconds("The smallest wish of this time counts.", most=3600, default=0)
    max_percent: int = whole(
        "Pods added in a period, in percent of those that were there; or maxPods, what is more.",
        least=1,
        most=10_000,
        default=100,
    )
    max_pods: int = whole("Pods added in a period.", least=1, most=MOST_PODS, default=4)
    period: timedelta = seconds("The length of a period.", least=5, most=1800, default=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleDownSpec(Section):
    """How fast pods may be taken away."""

    stabilization_window: timedelta = seconds("The largest wish of this time counts.", most=3600, default=300)
    max_percent: int = whole(
        "Pods taken away in a period, in percent of those that were there; or maxPods, what is more.",
        least=1,
        most=100,
        default=50,
    )
    max_pods: int = whole("Pods taken away in a period.", least=1, most=MOST_PODS, default=4)
    period: timedelta = seconds("The length of a period.", least=5, most=1800, default=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingSpec(Section):
    """How many pods there are, by the work that there is."""

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
        "The fewest pods. 0: none when there is nothing to do; the next job then waits for a pod to start.",
        most=MOST_PODS,
        default=0,
    )
    max_replicas: int = whole("The most pods.", least=1, most=MOST_PODS, required=True)
    target_latency: timedelta = seconds(
        "How long a job should wait at most until it starts.", least=1, most=DAY, default=30
    )
    target_utilization_percent: int = whole(
        "How much of the slots should be in use when all goes well; the rest is headroom.",
        least=10,
        most=100,
        default=75,
    )
    activation_backlog: int = whole(
        "How many jobs must wait before the first pod is started.", least=1, most=1_000_000, default=1
    )
    idle: timedelta = seconds(
        "How long there must be nothing to do before all pods go.", most=30 * DAY, default=300
    )
    prewarm: timedelta = seconds(
        "How long before a job is due pods are started for it.", most=3600, default=0
    )
    tolerance_percent: int = whole(
        "Changes of fewer pods than this, in percent, are not made.", most=100, default=10
    )
    fallback_replicas: int | None = whole(
        "At least so many pods when the database has not been heard for 30 s. Absent: as many as there are.",
        most=MOST_PODS,
    )
    scale_up: ScaleUpSpec = part("How fast pods may be added.", ScaleUpSpec)
    scale_down: ScaleDownSpec = part("How fast pods may be taken away.", ScaleDownSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec(Section):
    """A step of a progressive rollout."""

    weight_percent: int = whole("The new version's share of the slots.", least=1, most=99, required=True)
    pause: timedelta = seconds(
        "How long it has this share before the next step.", least=30, most=7 * DAY, required=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortSpec(Section):
    """When a progressive rollout goes back by itself, and when a step of it is held."""

    max_failure_percent: int = whole(
        "It goes back when more of the new version's jobs fail, time out, are lost with their worker or hang than this, "
        "and twice as many as of the old version's. 100: never.",
        least=1,
        most=100,
        default=50,
    )
    min_samples: int = whole(
        "How many jobs of the new version must have ended in a step to be judged. A step with fewer does not end.",
        least=1,
        most=1_000_000,
        default=20,
    )
    max_restarts: int = whole(
        "It goes back when containers of the new version were started again more often than this since it has a share, "
        "or as many workers fell silent, and twice as many for each pod as of the old version.",
        most=1_000_000,
        default=2,
    )
    max_slowdown_factor: int = whole(
        "It goes back when half of the new version's jobs take more than so many times what half of the old "
        "version's take.",
        least=2,
        most=1_000_000,
        default=5,
    )
    hang_factor: int = whole(
        "A job hangs when it has run for more than a minute, and so many times as long as 99 % of the old version's "
        "jobs take at most.",
        least=2,
        most=1_000_000,
        default=10,
    )
    inconclusive_hold: timedelta = seconds(
        "How long a step may be held, since too little is known to go on; then it goes back. 0: for ever.",
        most=365 * DAY,
        default=0,
    )
    hand_back: timedelta = seconds(
        "How long jobs of a version that went back may go on before its pods are stopped, with their grace. "
        "What has not ended by then goes back to the queue, and the attempt does not count.",
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
        "The shares that the new version has one after another, of a progressive rollout; then it has all.",
        StepSpec,
        key="weightPercent",
        most=20,
    )
    abort: AbortSpec = part(
        "When a progressive rollout goes back by itself, and when a step of it is held.", AbortSpec
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
        "How long an old version's jobs may go on before that counts as too long. 0: for ever.",
        most=365 * DAY,
        default=0,
    )
    on_timeout: OnDrainTimeout = choice(
        "What happens then. Wait: a condition says so, nothing else. Terminate: its pods are stopped, and jobs that "
        "have not finished within their grace go back to the queue.",
        OnDrainTimeout,
        default=OnDrainTimeout.WAIT,
    )
    shrink_idle: bool = flag(
        "Whether pods of an old version that have nothing left to do go before the others.", default=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SunsetSpec(Section):
    """What becomes of an old version that has nothing left to do."""

    scale_down_delay: timedelta = seconds(
        "How long its pods stay, for a quick way back.", most=30 * DAY, default=60
    )
    delete_delay: timedelta = seconds(
        "How long its Deployment stays without pods.", most=365 * DAY, default=3600
    )
    history_limit: int = whole("How many versions without a Deployment are remembered.", most=20, default=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptionSpec(Section):
    """What may happen to pods when nodes are drained, or taken away."""

    budget: BudgetChoice = choice(
        "What the pool's PodDisruptionBudget holds back. AllPods: of all pods that may have jobs, maxUnavailable are "
        "evicted at a time. LongJobs: pods that run a job for long are not evicted, all others are. None: there is none.",
        BudgetChoice,
        default=BudgetChoice.ALL_PODS,
    )
    max_unavailable: int = whole(
        "How many pods may be missing at a time by evictions, with budget AllPods. 0: none is evicted.",
        most=MOST_PODS,
        default=1,
    )
    mark_pods: bool = flag(
        "Whether pods that run a job for long carry annotations which tell the cluster autoscaler and Karpenter to leave "
        "their nodes alone, and which make others the first to go.",
        default=True,
    )
    long_after: timedelta = seconds(
        "How long a job runs before its pod counts as one that runs a job for long.",
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
        "How long running jobs may go on when a pod is stopped. Absent: 120.", least=5, most=DAY
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
        "The version of the handlers: a number, a tag, a commit. Another one is rolled out beside the present one.",
        most=63,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._+-]*[A-Za-z0-9])?$",
        required=True,
    )
    queues: tuple[str, ...] = texts(
        "Other queues that these workers serve beside their own: ForgeQueues without workers.",
        items=64,
        most=63,
        pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$",
    )
    name_prefix: str | None = text(
        "How the names of Deployments begin. Absent: the name of this object.",
        most=20,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
    )
    identity: Identity = choice(
        "What makes a version another one. Template: version or template, so every change of the template is rolled "
        "out beside the present pods. Version: version alone; a change of the template replaces the pods in place.",
        Identity,
        default=Identity.TEMPLATE,
    )
    slots: int = whole("How many jobs a pod runs at once.", least=1, most=10_000, default=10)
    replicas: int | None = whole(
        "How many pods there are; kubectl scale and a HorizontalPodAutoscaler change it. "
        "Absent: as autoscaling decides, or 1 without it.",
        most=MOST_PODS,
    )
    autoscaling: AutoscalingSpec | None = part(
        "How many pods there are, by the work that there is. Not together with replicas.",
        AutoscalingSpec,
        optional=True,
    )
    rollout: RolloutSpec = part("How a new version takes over from the old one.", RolloutSpec)
    drain: DrainSpec = part("How an old version ends.", DrainSpec)
    sunset: SunsetSpec = part("What becomes of an old version that has nothing left to do.", SunsetSpec)
    disruption: DisruptionSpec = part(
        "What may happen to pods when nodes are drained, or taken away.", DisruptionSpec
    )
    template: Mapping[str, Any] = as_written("The pods, as in a Deployment.", TemplateShape)
