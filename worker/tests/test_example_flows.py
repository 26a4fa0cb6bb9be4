"""The examples of docs/flows.md do what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forge_jobs import Flow, Forge, Worker
from forge_jobs.model.flow import FlowState

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


async def test_all_dead_flows_of_a_name_go_on_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.sqlite'}"
    forge = Forge(url)
    is_broken = True

    @forge.handler(max_attempts=1)
    async def step(number: int) -> int:
        if is_broken:
            raise ValueError("broken")
        return number

    async with forge:
        flows = {name: Flow(name).and_then(step).and_then(step, name="next") for name in ("order", "other")}
        started = [
            (await forge.flows.start(flows[name], 1)).id for name in ("order", "order", "order", "other")
        ]
        await Worker(forge, queues=["default"]).run(until_empty=True)
        deleted = (await forge.flows.nodes(started[1]))[0].job_id
        await forge.jobs.delete(deleted)

        is_broken = False
        said = await forge.flows.retry_all(name="order")
        await Worker(forge, queues=["default"]).run(until_empty=True)

        assert (said.retried, list(said.left)) == (2, [started[1]])
        states = [(await forge.flows.get(one)).state for one in started]
        assert states == [FlowState.DONE, FlowState.DEAD, FlowState.DONE, FlowState.DEAD]

    def ran(*command: str) -> str:
        environment = {**os.environ, "FORGE_DATABASE_URL": url}
        command = (sys.executable, "-m", "forge_jobs", "flows", "retry", *command)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        return done.stdout + done.stderr

    assert "allowed is one of them" in ran()
    assert "goes with --all" in ran("1", "--name", "order")
    assert f"Retried dead flows: 1. Jobs were deleted of {started[1]}: start them anew." in ran("--all")
