"""Every alert fires when it should and not before, and asks for metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from forge_operator.metrics.operator import OperatorMetrics
from tests.chart.helm import CHART, ROOT

HERE = Path(__file__).parent
RULES = CHART / "alerts" / "forge-jobs.yaml"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((CHART / "dashboards" / "forge-jobs.json").read_text())
VARIABLES = {
    each["name"]: re.fullmatch(r"label_values\((.+), \w+\)", each["query"]["query"])[1]  # type: ignore[index]
    for each in DASHBOARD["templating"]["list"]
    if each["type"] == "query"
}
"""Of which series the dashboard's variables take their values."""
QUESTIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not on PATH (apt package prometheus)"
)


def promtool(*words: str) -> None:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def documented() -> set[str]:
    """The names of all metrics of workers, as docs/metrics.md has them, and of the operator."""
    table = re.findall(
        r"^\| `(forge_\w+)` \| (\w+)", (ROOT / "docs/metrics.md").read_text(), flags=re.MULTILINE
    )
    names = set()
    for name, type_ in table:
        names |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if type_ == "histogram" else {name}
    for family in OperatorMetrics().registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, [""])}
    return names


def asked_for(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:forge|process)_\w+", expression))


def test_there_are_metrics_to_compare_with() -> None:
    assert {"forge_jobs_wait_seconds_bucket", "forge_operator_leader", "forge_workers"} <= documented()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_asks_for_metrics_that_there_are(alert: dict[str, Any]) -> None:
    assert asked_for(alert["expr"])
    assert asked_for(alert["expr"]) - documented() == set()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_what_is_wrong_and_what_to_do(alert: dict[str, Any]) -> None:
    kept = {label.strip() for by in re.findall(r"by \(([^)]*)\)", alert["expr"]) for label in by.split(",")}

    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert alert["annotations"].keys() == {"runbook_url", "summary", "description"}
    for text in (alert["annotations"]["summary"], alert["annotations"]["description"]):
        assert text.endswith(".")
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= kept


@pytest.mark.parametrize("expression", QUESTIONS)
def test_the_dashboard_asks_for_metrics_that_there_are(expression: str) -> None:
    assert asked_for(expression)
    assert (
        asked_for(expression) - documented() - {"process_resident_memory_bytes", "process_cpu_seconds_total"}
        == set()
    )


def test_every_panel_has_a_place_and_a_description() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for at in places
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in DASHBOARD["panels"]:
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]


def chosen(question: str, **values: str) -> str:
    """What Grafana asks when these values are chosen, and everything elsewhere."""
    question = question.replace("$__rate_interval", "5m")
    return re.sub(r"\$(\w+)", lambda match: values.get(match[1], ".*"), question)


def test_each_question_is_about_the_database_and_about_no_variable_that_is_not_there() -> None:
    for question in (*QUESTIONS, *VARIABLES.values()):
        assert set(re.findall(r"\$(\w+)", question)) <= {*VARIABLES, "__rate_interval"}
    for question in QUESTIONS:
        assert question.count('database=~"$database"') == len(
            re.findall(r"\b(?:forge|process)_\w+", question)
        )


@pytest.mark.parametrize("variable", VARIABLES)
def test_variables_are_taken_from_metrics_that_there_are_and_show_everything_at_first(variable: str) -> None:
    (found,) = [each for each in DASHBOARD["templating"]["list"] if each["name"] == variable]

    assert asked_for(VARIABLES[variable])
    assert asked_for(VARIABLES[variable]) - documented() == set()
    assert found["includeAll"] and found["current"]["value"] == "$__all"


@needs_promtool
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"letters", "post", "fax"}),
        ({"namespace": "shop"}, {"letters"}),
        ({"namespace": "(shop|mail)"}, {"letters", "post"}),
        ({"pool": "mail/post"}, {"post"}),
        ({"namespace": "shop", "pool": "mail/post"}, set()),
        ({"database": "jobs/other"}, {"fax"}),
    ],
)
def test_a_namespace_a_pool_and_a_database_choose_their_queues(
    tmp_path: Path, values: dict[str, str], expected: set[str]
) -> None:
    """A queue without a ForgeQueue has no pool, and is shown as long as none is chosen."""
    labels = [
        'database="jobs/forge-jobs",pool="shop/letters",queue="letters"',
        'database="jobs/forge-jobs",pool="mail/post",queue="post"',
        'database="jobs/other",queue="fax"',
    ]
    wanted = [
        {"labels": f"forge_queue_pending_jobs{{{each}}}", "value": 1}
        for each in labels
        if each.rpartition("queue=")[2].strip('"') in expected
    ]
    question = {"expr": chosen(VARIABLES["queue"], **values), "eval_time": "1m", "exp_samples": wanted}
    series = [{"series": f"forge_queue_pending_jobs{{{each}}}", "values": "1 1 1"} for each in labels]
    file = tmp_path / "queues.yaml"
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": [question]}]
    file.write_text(yaml.safe_dump({"tests": tests}))

    promtool("test", "rules", str(file))


@needs_promtool
def test_promtool_can_read_the_alerts() -> None:
    promtool("check", "rules", str(RULES))


@needs_promtool
def test_promtool_can_read_the_dashboards_questions(tmp_path: Path) -> None:
    filled = [chosen(each) for each in (*QUESTIONS, *VARIABLES.values())]
    rules = [{"record": f"question:{index}", "expr": each} for index, each in enumerate(filled)]
    file = tmp_path / "questions.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    promtool("check", "rules", str(file))


@needs_promtool
@pytest.mark.parametrize("file", sorted(HERE.glob("alerts/*.yaml")), ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_not_before(file: Path) -> None:
    promtool("test", "rules", str(file))


def test_every_alert_is_seen_firing_and_silent() -> None:
    firing, silent = set(), set()
    for file in HERE.glob("alerts/*.yaml"):
        for test in yaml.safe_load(file.read_text())["tests"]:
            for expected in test["promql_expr_test"]:
                (name,) = re.findall(r'alertname="(\w+)"', expected["expr"])
                (firing if expected["exp_samples"] else silent).add(name)

    names = {alert["alert"] for alert in ALERTS}
    assert (firing, silent) == (names, names)


def test_every_alert_links_to_its_runbook_and_no_runbook_is_about_another() -> None:
    page = (ROOT / "docs" / "runbooks.md").read_text()
    headings = re.findall(r"^## (\w+)$", page, flags=re.MULTILINE)

    assert headings == [alert["alert"] for alert in ALERTS]
    for alert in ALERTS:
        base, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert base == VALUES["prometheusRule"]["runbookUrl"]
        assert anchor == alert["alert"].lower()  # as pages make anchors of headings


@pytest.mark.parametrize("name", [str(alert["alert"]) for alert in ALERTS])
def test_a_runbook_says_what_is_seen_what_it_means_what_to_do_and_when_it_is_over(name: str) -> None:
    page = (ROOT / "docs" / "runbooks.md").read_text()
    _, _, rest = page.partition(f"\n## {name}\n")
    parts = re.findall(r"^\*\*(\w[\w ]*)\.\*\*", rest.partition("\n## ")[0], flags=re.MULTILINE)

    assert parts == ["Symptom", "It means", "To do", "Over"]
