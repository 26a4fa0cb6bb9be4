"""The examples of docs/flows.md do what they say."""

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
