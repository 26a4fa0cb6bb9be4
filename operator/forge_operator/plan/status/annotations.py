"""Annotations that people write on an object: one without effect is reported."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from forge_operator import naming
from forge_operator.plan.actions import EmitEvent
from forge_operator.specs.section import wrong


@dataclass(frozen=True, slots=True)
class Annotation:
    """The values that an annotation may have."""

    pattern: str
    allowed: str  # in words


YES_OR_NO = Annotation("true|false", "'true' or 'false'")
OF_CRONS = {naming.PAUSED: YES_OR_NO}
OF_QUEUES = {
    naming.PAUSED: YES_OR_NO,
    naming.FORCE_DELETE: YES_OR_NO,
    naming.AUTOSCALING: Annotation("observe", "'observe'"),
    naming.PROMOTE: Annotation("[a-z0-9]{8}", "the id of a version, as status.versions lists them"),
}
BY_KIND: Mapping[str, Mapping[str, Annotation]] = {"ForgeQueue": OF_QUEUES, "ForgeCron": OF_CRONS}


def ignored(sentences: Iterable[str], said: Collection[str]) -> list[EmitEvent]:
    """Return a warning for each of these complaints that was not `said` at the look before."""
    return [
        EmitEvent("Warning", "AnnotationIgnored", sentence) for sentence in sentences if sentence not in said
    ]


def complaints(kind: str, annotations: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each annotation of ours that has another name or value than those that do something."""
    known = BY_KIND[kind]
    for name, value in sorted(annotations.items()):
        if not name.startswith(f"{naming.GROUP}/"):
            continue
        if name not in known:
            yield str(wrong("An annotation", name, f"{' or '.join(sorted(known))}, on a {kind}"))
        elif not re.fullmatch(known[name].pattern, value, re.ASCII):
            yield str(wrong(f"The annotation {name}", value, known[name].allowed))
