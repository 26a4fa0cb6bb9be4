"""The pages about Kubernetes say what the code says."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import yaml

from docs import kubernetes_tables as tables
from forge_operator import naming
from forge_operator.conditions import Condition, ConditionReason
from forge_operator.metrics.operator import OperatorMetrics
from forge_operator.plan import disruption
from forge_operator.plan.scaling.decide import ScalingReason, decide
from forge_operator.plan.scaling.load import Load
from forge_operator.plan.status.queue import explained
from forge_operator.specs import AutoscalingSpec, BudgetChoice, DisruptionSpec, read_queue
from forge_operator.specs.section import read
from forge_operator.state.memory import ScalerMemory
from tests import custom_resources

PAGE = "\n".join(page.read_text(encoding="utf-8") for page in tables.PAGES)
SOURCES = Path(naming.__file__).parent


def test_the_tables_are_those_of_the_definitions_and_conditions() -> None:
    assert tables.renewed(PAGE) == PAGE, "run: python docs/kubernetes_tables.py"


def test_every_table_is_on_a_page() -> None:
    assert {found["name"] for found in tables.TABLE.finditer(PAGE)} == tables.TABLES.keys()


def test_every_condition_and_reason_is_on_a_page() -> None:
    missing = [each.value for each in (*Condition, *ConditionReason) if f"`{each.value}`" not in PAGE]
    assert not missing


def test_every_annotation_that_people_write_is_on_a_page() -> None:
    written = (naming.PROMOTE, naming.AUTOSCALING, naming.PAUSED, naming.FORCE_DELETE)
    assert [each for each in written if each not in PAGE] == []


def test_every_event_is_on_a_page() -> None:
    told: set[str] = set()
    for source in SOURCES.rglob("*.py"):
        told |= set(re.findall(r'EmitEvent\(\s*"(?:Normal|Warning)",\s*"(\w+)"', source.read_text()))
    assert told
    assert sorted(each for each in told if f"`{each}`" not in PAGE) == []


def test_every_symptom_on_the_page_has_a_name_that_there_is() -> None:
    _, _, rest = PAGE.partition("| You see | It means | Do |")
    table, _, _ = rest.partition("\n\n")
    alerts = (Path(__file__).parents[2] / "charts/forge-jobs/alerts/forge-jobs.yaml").read_text()
    titles = {slug(each) for each in re.findall(r"^#+ (.*)$", PAGE, flags=re.MULTILINE)}
    seen = [row.split("|")[1] for row in table.splitlines()[2:]]
    said = {word for each in seen for word in re.findall(r"`([A-Z][A-Za-z]+)(?:=[A-Z]\w+)?`", each)}

    assert len(seen) >= 11
    assert said <= {each.value for each in (*Condition, *ConditionReason)} | {"DriftRepaired"}
    assert all(f"alert: {each}\n" in alerts for each in re.findall(r"\bForge[A-Z]\w+", " ".join(seen)))
    assert set(re.findall(r"\]\(#([a-z0-9-]+)\)", PAGE)) <= titles


def slug(title: str) -> str:
    """Return what links to a title of the page say."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def test_every_metric_of_the_operator_is_on_a_page() -> None:
    named = {each.name for each in OperatorMetrics().registry.collect() if each.name.startswith("forge_")}
    assert {"forge_operator_leader", "forge_queue_pending_jobs", "forge_autoscaler_decision_info"} <= named
    assert sorted(each for each in named if f"`{each}" not in PAGE) == []


def version_of(resource: dict[str, Any]) -> naming.VersionIdentity:
    workers = read_queue(resource).spec.workers
    assert workers is not None
    return naming.identity("uid", workers)


def test_the_command_that_rolls_back_gives_the_version_before() -> None:
    (text,) = (
        each for each in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "kind: ForgeQueue" in each
    )
    (patch,) = re.findall(r"kubectl patch \w+ mail --type=json --patch '(.*?)'\n", PAGE, re.DOTALL)
    before, after = yaml.safe_load(text.replace("1.8.1", "1.8.0")), yaml.safe_load(text)
    assert version_of(before) != version_of(after)

    back = copy.deepcopy(after)
    for change in json.loads(patch):
        *path, last = (int(part) if part.isdigit() else part for part in change["path"].split("/")[1:])
        place: Any = back
        for part in path:
            place = place[part]
        assert change["op"] == "replace"
        assert last in place
        place[last] = change["value"]

    assert version_of(back) == version_of(before)


def test_the_objects_of_the_page_are_allowed() -> None:
    objects = [
        resource
        for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        for resource in yaml.safe_load_all(block)
        if resource.get("kind", "").startswith("Forge")
    ]

    assert sorted(resource["kind"] for resource in objects) == ["ForgeCron", "ForgeQueue"]
    assert [custom_resources.refusals(custom_resources.complete(resource)) for resource in objects] == [
        [],
        [],
    ]


def test_what_annotates_may_be_run_again() -> None:
    commands = re.findall(r"kubectl annotate [^`\n]+", PAGE)
    assert commands
    assert [each for each in commands if "--overwrite" not in each] == []


def test_the_decision_on_the_page_is_one_that_is_made() -> None:
    load = Load(at=0.0, backlog=240, oldest_age=12, in_progress=20, arrival=6, service=4, ready=2)
    decision, _ = decide(AutoscalingSpec(max_replicas=20), 10, load, ScalerMemory(), current=2, now=0.0)

    assert explained(decision) in PAGE.replace("\n", " ")


def test_every_reason_for_a_decision_is_on_a_page() -> None:
    by_load = set(ScalingReason) - {ScalingReason.DEFAULT, ScalingReason.FIXED}
    assert sorted(each for each in by_load if f"`{each}`" not in PAGE) == []


def test_every_variable_of_the_operator_is_on_a_page() -> None:
    read = set(re.findall(r'"(FORGE_[A-Z_]+)"', (SOURCES / "environment.py").read_text(encoding="utf-8")))
    assert "FORGE_OPERATOR_TICK_SECONDS" in read

    assert {each for each in read if f"`{each}`" not in PAGE} == set()


def test_what_the_page_says_of_disruptions_may_be_said_and_its_marks_are_those_that_are_written() -> None:
    (said,) = [
        yaml.safe_load(block)["workers"]["disruption"]
        for block in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
        if "disruption:" in block
    ]
    marks = {**disruption.LABELS, **disruption.ANNOTATIONS, naming.DELETION_COST: disruption.LAST_TO_GO}

    assert read(DisruptionSpec, said, "spec") == DisruptionSpec(budget=BudgetChoice.LONG_JOBS)
    for name, value in marks.items():
        assert f"`{name}`" in PAGE or f'`{name}: "{value}"`' in PAGE
    assert f"on {disruption.MOST_AT_ONCE} pods of a pool" in PAGE
