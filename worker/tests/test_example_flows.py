"""The examples of docs/flows.md do what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "order_fulfilment",
            [
                "[1001] charges $74.99 for 3 items",
                "[1001] WIDGET-C is out of stock",
                "[1001] 2 items confirmed in stock",
                "[1001] dispatched 2 items: TRACK-1001",
                "emails alice@example.com: your 2 items are on the way",
                "{'notify': 'TRACK-1001'}",
            ],
        ),
        ("user_etl", ["{'collector': 249}"]),
    ],
)
def test_the_examples_of_flows_run(tmp_path: Path, name: str, said: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        env={**os.environ, "FORGE_DATABASE_URL": f"sqlite:///{tmp_path / 'queue.sqlite'}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert ran.stdout.splitlines() == said, ran.stderr


def test_a_flow_is_shown_by_the_command_line(tmp_path: Path) -> None:
    environment = {**os.environ, "FORGE_DATABASE_URL": f"sqlite:///{tmp_path / 'queue.sqlite'}"}

    def ran(*command: str) -> "subprocess.CompletedProcess[str]":
        command = (sys.executable, *command)
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=100, check=False
        )

    ran(str(EXAMPLES / "user_etl.py"))
    [listed] = json.loads(ran("-m", "forge_jobs", "--json", "flows", "list").stdout)
    shown = json.loads(ran("-m", "forge_jobs", "--json", "flows", "show", str(listed["id"])).stdout)
    refused = ran("-m", "forge_jobs", "flows", "retry", str(listed["id"]))

    assert (listed["name"], listed["state"], listed["done"]) == ("user-etl", "done", 4)
    assert [node["name"] for node in shown["of_nodes"]] == ["get_name", "get_age", "get_address", "collector"]
    assert "is done and was not retried, allowed is a dead or a cancelled one" in refused.stderr
