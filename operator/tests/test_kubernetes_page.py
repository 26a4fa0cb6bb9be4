"""docs/kubernetes.md says what the code says."""

import re
from pathlib import Path

from docs import kubernetes_tables as tables
from forge_operator import naming
from forge_operator.conditions import Condition, Reason
from forge_operator.metrics import Metrics

PAGE = tables.PAGE.read_text(encoding="utf-8")
SOURCES = Path(naming.__file__).parent


def test_the_tables_are_those_of_the_definitions_and_conditions() -> None:
    assert tables.renewed(PAGE) == PAGE, "run: python docs/kubernetes_tables.py"


def test_every_table_is_on_the_page() -> None:
    assert {found["name"] for found in tables.TABLE.finditer(PAGE)} == tables.TABLES.keys()


def test_every_condition_and_reason_is_on_the_page() -> None:
    missing = [each.value for each in (*Condition, *Reason) if f"`{each.value}`" not in PAGE]
    assert not missing


def test_every_annotation_that_people_write_is_on_the_page() -> None:
    written = (naming.PROMOTE, naming.AUTOSCALING, naming.PAUSED, naming.FORCE_DELETE)
    assert [each for each in written if each not in PAGE] == []


def test_every_event_is_on_the_page() -> None:
    told: set[str] = set()
    for source in SOURCES.glob("*.py"):
        told |= set(re.findall(r'EmitEvent\(\s*"(?:Normal|Warning)",\s*"(\w+)"', source.read_text()))
    assert told
    assert sorted(each for each in told if f"`{each}`" not in PAGE) == []


def test_every_metric_of_the_operator_is_on_the_page() -> None:
    named = {each.name for each in Metrics().registry.collect() if each.name.startswith("forge_")}
    assert {"forge_operator_leader", "forge_queue_pending_jobs", "forge_autoscaler_decision_info"} <= named
    assert sorted(each for each in named if f"`{each}" not in PAGE) == []
