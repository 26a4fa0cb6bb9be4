"""Which queues there are, from benchmarks/peers/packages.toml."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "peers"
FILE = FOLDER / "packages.toml"


@dataclass(frozen=True, slots=True)
class Peer:
    """A queue, and how it is run."""

    name: str
    adapter: str = ""  # its file in benchmarks/peers
    python: Sequence[str] = ()
    node: Sequence[str] = ()
    needs: str = ""  # the oldest Python that it runs on, if that is newer than ours
    note: str = ""  # what a reader has to know to compare it
    ours: bool = False
    situations: str = ""  # "all" stress cells, "general" ones, or none
    alone: bool = False  # one process only may work
    bare: bool = False  # no queue, but what to compare one with: only its throughput is measured
    missing: str = ""  # why it is not measured

    @property
    def is_node(self) -> bool:
        """Whether it runs on Node."""
        return bool(self.node)


def read(text: str) -> tuple[dict[str, Peer], dict[str, Any]]:
    """Return the queues by their names, and what is installed for all of a language."""
    written = tomllib.loads(text)
    common = written.pop("common", {})
    return {name: Peer(name, **facts) for name, facts in written.items()}, common


def peers() -> dict[str, Peer]:
    """Return all queues, ours first."""
    return read(FILE.read_text(encoding="utf-8"))[0]


def common() -> dict[str, Any]:
    """Return what is installed beside the packages of every queue: `python`, `node` and `npm`."""
    return read(FILE.read_text(encoding="utf-8"))[1]
