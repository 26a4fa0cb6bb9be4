"""KEDA and HorizontalPodAutoscalers can scale a ForgeQueue as the examples and docs/kubernetes-scaling.md say."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import ROOT
from tests.chart.kubernetes_types import mistakes
from tests.chart.test_alerts import needs_promtool, promtool

EXAMPLES = ("keda.yaml", "horizontal-pod-autoscaler.yaml")


def example(name: str) -> dict[str, dict[str, Any]]:
    """Return the objects of an example, by kind."""
    text = (ROOT / "examples" / "kubernetes" / name).read_text(encoding="utf-8")
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def adapter_rule() -> dict[str, Any]:
    """Return the rule for prometheus-adapter."""
    page = (ROOT / "docs" / "kubernetes-scaling.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(rules:\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    (rule,) = yaml.safe_load(block)["rules"]["external"]
    assert isinstance(rule, dict)
    return rule


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_scales_the_queue_that_it_declares(name: str) -> None:
    objects = example(name)
    queue = objects["ForgeQueue"]
    (scaler,) = [
        each for kind, each in objects.items() if kind in ("ScaledObject", "HorizontalPodAutoscaler")
    ]

    assert scaler["spec"]["scaleTargetRef"] == {
        "apiVersion": queue["apiVersion"],
        "kind": queue["kind"],
        "name": queue["metadata"]["name"],
    }
    assert "replicas" in queue["spec"]["workers"], "the API server serves no scale without it"
    assert "autoscaling" not in queue["spec"]["workers"], "only one may decide"


@pytest.mark.parametrize("name", EXAMPLES)
def test_kubernetes_knows_every_field_of_an_example(name: str) -> None:
    assert [mistake for each in example(name).values() for mistake in mistakes(each)] == []


def test_an_example_knows_the_slots_of_its_queue() -> None:
    keda, horizontal = (example(name) for name in EXAMPLES)
    (trigger,) = keda["ScaledObject"]["spec"]["triggers"]
    (metric,) = horizontal["HorizontalPodAutoscaler"]["spec"]["metrics"]

    assert float(trigger["metadata"]["targetQueryValue"]) == busy(keda)
    assert metric["external"]["target"]["averageValue"] == f"{busy(horizontal) * 1000:.0f}m"
    assert metric["external"]["metric"]["name"] == adapter_rule()["name"]["as"]


def busy(objects: dict[str, dict[str, Any]]) -> float:
    """Return three quarters of a pod's slots."""
    slots: int = objects["ForgeQueue"]["spec"]["workers"]["slots"]
    return slots * 0.75


@needs_promtool
def test_the_adapters_rule_gives_the_workload_once_whoever_else_tells_of_the_queue(tmp_path: Path) -> None:
    query = adapter_rule()["metricsQuery"].replace("<<.LabelMatchers>>", 'queue="mail"')
    operator = 'pool="shop/mail",queue="mail",pod="operator"'
    told = {
        f"forge_queue_pending_jobs{{{operator}}}": 11,
        f"forge_queue_unhandled_jobs{{{operator}}}": 2,
        f"forge_queue_held_jobs{{{operator}}}": 3,
        f"forge_queue_in_progress_jobs{{{operator}}}": 2,
        'forge_queue_pending_jobs{queue="mail",pod="worker"}': 11,
        'forge_queue_in_progress_jobs{queue="mail",pod="worker"}': 2,
        'forge_queue_pending_jobs{pool="shop/orders",queue="orders",pod="operator"}': 50,
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": f"{value}x5"} for name, value in told.items()],
        "promql_expr_test": [
            {"expr": query, "eval_time": "2m", "exp_samples": [{"labels": "{}", "value": 8}]}
        ],
    }
    file = tmp_path / "adapter.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}))

    promtool("test", "rules", str(file))
