"""The chart as helm renders it."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "forge-jobs"
NAMESPACE = "jobs"

OLDEST, NEWEST = "1.20.2", "1.37.0"
"""The Kubernetes versions between which the chart can be installed."""

Manifest = dict[str, Any]

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Written in C where PyYAML has that: the definitions of custom resources are long."""

needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


class Refused(Exception):
    """What helm printed when it refused."""


def helm(*words: str) -> str:
    """Return what helm printed. Raises Refused."""
    done = subprocess.run(["helm", *words], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise Refused(done.stdout + done.stderr)
    return done.stdout


def flags(values: Mapping[str, Any]) -> list[str]:
    """Return what gives these values, by their dotted names, to helm."""
    return [word for key, value in values.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]


def render(
    values: Mapping[str, Any] | None = None, *, release: str = "forge-jobs", kubernetes: str = NEWEST
) -> list[Manifest]:
    """Return all objects of the chart, those of its hooks too. Raises Refused."""
    given = {"postgres.enabled": True} if values is None else values
    return json.loads(_rendered(tuple(flags(given)), release, kubernetes))  # type: ignore[no-any-return]


@cache
def _rendered(words: tuple[str, ...], release: str, kubernetes: str) -> str:
    text = helm(
        "template", release, str(CHART), "--namespace", NAMESPACE, "--kube-version", kubernetes, *words
    )
    return json.dumps([each for each in yaml.load_all(text, LOADER) if each is not None])


def named(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the object. Raises AssertionError when there is none, or more."""
    found = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, [(each["kind"], each["metadata"]["name"]) for each in objects]
    return found[0]


def of_kind(objects: list[Manifest], *kinds: str) -> list[Manifest]:
    """Return the objects of these kinds."""
    return [each for each in objects if each["kind"] in kinds]


def pod_specs(objects: list[Manifest]) -> dict[str, Manifest]:
    """Return the spec of every pod that the objects make, by the name of the object."""
    found = {}
    for each in objects:
        if each["kind"] == "Pod":
            found[each["metadata"]["name"]] = each["spec"]
        elif "template" in each.get("spec", {}):
            found[each["metadata"]["name"]] = each["spec"]["template"]["spec"]
    return found


def containers(spec: Manifest) -> list[Manifest]:
    """Return the containers of a pod, those that run first too."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(container: Manifest) -> dict[str, Manifest]:
    """Return the variables of a container by name."""
    return {each["name"]: each for each in container.get("env", [])}
