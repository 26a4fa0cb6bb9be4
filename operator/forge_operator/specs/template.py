"""What a pod template must look like."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar

from forge_operator.specs.bounds import DAY
from forge_operator.specs.fields import choice, part, parts, seconds, text, texts_by_name
from forge_operator.specs.section import Rule, Section

OWN_LABELS = "forge-jobs.dev/"
"""How the labels begin that only the operator may write."""


class RestartPolicy(StrEnum):
    """Whether containers are started again; of a Deployment's always."""

    ALWAYS = "Always"


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
    restart_policy: RestartPolicy | None = choice("Always, as in every Deployment.", RestartPolicy)
    termination_grace_period: timedelta | None = seconds(
        "How long running jobs may go on when their pod is stopped. Absent: 120.",
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
