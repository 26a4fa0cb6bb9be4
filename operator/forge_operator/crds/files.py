"""The files that hold the custom resource definitions: plain ones, and the chart's copies."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import yaml

from forge_operator.crds.cron import cron_definition
from forge_operator.crds.queue import queue_definition

PLAIN = PurePosixPath("crds")
CHART = PurePosixPath("charts/forge-jobs/templates/crds")

HEADER = "# Written by `python -m forge_operator.crds`; change operator/forge_operator/specs instead.\n"

# The releases that know these; an older API server would refuse the whole definition in a server-side apply.
SINCE = {"x-kubernetes-validations:": "1.29-0", "selectableFields:": "1.31-0"}


def files() -> dict[str, str]:
    """Return the text of each file by its path in the repository."""
    texts = {}
    for definition in (queue_definition(), cron_definition()):
        name = f"{definition['spec']['names']['plural']}.yaml"
        texts[str(PLAIN / name)] = HEADER + _yaml(definition)
        texts[str(CHART / name)] = HEADER + _chart_copy(definition)
    return texts


def printed() -> str:
    """Return both definitions, as `kubectl apply -f -` takes them."""
    return "".join(f"---\n{_yaml(definition)}" for definition in (queue_definition(), cron_definition()))


def _chart_copy(definition: dict[str, Any]) -> str:
    """Return the definition as a template: installed if wanted, kept on uninstall, and understood by old clusters."""
    annotated = dict(definition)
    annotated["metadata"] = {
        **definition["metadata"],
        "annotations": {"helm.sh/resource-policy": "keep"},  # objects and their queues outlive the release
    }
    lines = "\n".join(_guarded(_yaml(annotated).splitlines()))
    return f"{{{{- if .Values.crds.install }}}}\n{lines}\n{{{{- end }}}}\n"


def _guarded(lines: list[str]) -> Iterator[str]:
    """Yield the lines, with a condition around each block that old API servers do not know."""
    guard: str | None = None  # the indent of the block that is being guarded
    for line in lines:
        indent = line[: len(line) - len(line.lstrip())]
        if guard is not None and not _belongs(line, guard):
            yield f"{guard}{{{{- end }}}}"
            guard = None
        since = SINCE.get(line.strip())
        if since:
            guard = indent
            yield f'{indent}{{{{- if semverCompare ">={since}" .Capabilities.KubeVersion.Version }}}}'
        yield line


def _belongs(line: str, indent: str) -> bool:
    """Whether a line belongs to the block whose first line has this indent; its list may have the same."""
    return line.startswith((f"{indent}- ", f"{indent} "))


def _yaml(definition: dict[str, Any]) -> str:
    return yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes a value that is used twice twice, rather than by reference."""

    def ignore_aliases(self, data: object) -> bool:
        return True
