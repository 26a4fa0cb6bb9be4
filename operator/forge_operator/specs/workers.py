"""What a ForgeQueue says of its workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from forge_operator.specs.autoscaling import AutoscalingSpec
from forge_operator.specs.bounds import LONGEST_NAME, MOST_PODS, QUEUE_NAME
from forge_operator.specs.disruption import DisruptionSpec
from forge_operator.specs.drain import DrainSpec, SunsetSpec
from forge_operator.specs.fields import as_written, choice, part, text, texts, whole
from forge_operator.specs.rollout import RolloutSpec
from forge_operator.specs.section import Rule, Section
from forge_operator.specs.template import TemplateShape


class Identity(StrEnum):
    """Which change makes a new version."""

    TEMPLATE = "Template"
    VERSION = "Version"


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
        most=LONGEST_NAME,
        pattern=QUEUE_NAME,
    )
    name_prefix: str | None = text(
        "The prefix of the Deployments' names. Absent: the name of this object.",
        most=20,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
    )
    identity: Identity = choice(
        "Which change makes a new version. Template: a change of version or template, so every change of the template is "
        "rolled out beside the present pods. Version: a change of version only; a change of the template replaces the pods in place.",
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
        "Makes the number of pods follow the work. It cannot be combined with replicas.",
        AutoscalingSpec,
        optional=True,
    )
    rollout: RolloutSpec = part("How a new version takes over from the old one.", RolloutSpec)
    drain: DrainSpec = part("How an old version ends.", DrainSpec)
    sunset: SunsetSpec = part("What happens to an old version once it has drained.", SunsetSpec)
    disruption: DisruptionSpec = part(
        "How pods are protected when nodes are drained or removed.", DisruptionSpec
    )
    template: Mapping[str, Any] = as_written("The pods, as in a Deployment.", TemplateShape)
