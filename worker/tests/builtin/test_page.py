"""docs/built-in-kinds.md: what it tells people to enqueue is accepted, and it names every kind and option."""

import json
import shlex
from pathlib import Path

from forge_jobs import builtin

PAGE = (Path(__file__).parents[3] / "docs" / "built-in-kinds.md").read_text(encoding="utf-8")


def test_what_the_page_enqueues_is_accepted() -> None:
    lines = [line for line in PAGE.replace("`", "\n").splitlines() if line.startswith("forge-jobs enqueue")]
    jobs = [shlex.split(line)[2:] for line in lines]

    assert {kind for kind, _ in jobs} == {"http", "command", "echo"}
    for kind, payload in jobs:
        builtin.forge.handlers[kind].arguments.check(json.loads(payload))


def test_the_page_names_every_kind_and_what_it_takes() -> None:
    for kind, handler in builtin.forge.handlers.items():
        section = PAGE.partition(f"\n## {kind}\n")[2].partition("\n## ")[0]

        assert section, kind
        assert [name for name in handler.arguments.names if f"`{name}`" not in section] == []
