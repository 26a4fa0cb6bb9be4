"""What was measured so far, one JSON file a cell, so that a run that was killed goes on where it was."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.comparison.cells import Cell
from benchmarks.comparison.measure import Result

RUN = "run.json"
CELLS = "cells"


class OtherRun(Exception):
    """The folder holds the cells of a run that measured something else."""


class Results:
    """The results of one run, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, run: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """The folder is that of this run, new or begun before; `facts` are kept from its beginning, but for the queues,
        which may be others each time, and the command.

        Raises OtherRun when what `run` says differs, for its numbers could not be compared.
        """
        path = self.folder / RUN
        if path.exists():
            known = json.loads(path.read_text())
            if differs := [key for key, value in run.items() if known["run"].get(key) != value]:
                raise OtherRun(
                    f"{self.folder} holds a run with another {' and '.join(differs)}; "
                    "--fresh throws it away, --folder names another place"
                )
            peers = {**known.get("peers", {}), **facts.get("peers", {})}
            missing = {**known.get("missing", {}), **facts.get("missing", {})}
            absent = {name: why for name, why in missing.items() if name not in peers}
            _write(path, {**known, "peers": peers, "missing": absent, "command": facts.get("command")})
            return
        _write(path, {"run": run, **facts})

    def clear(self) -> None:
        """The folder holds no run."""
        shutil.rmtree(self.folder / CELLS, ignore_errors=True)
        (self.folder / RUN).unlink(missing_ok=True)

    @property
    def facts(self) -> dict[str, Any]:
        """What was so at the beginning of the run."""
        facts: dict[str, Any] = json.loads((self.folder / RUN).read_text())
        return facts

    def get(self, name: str) -> Result | None:
        """Return what is known under that name, a cell's or another."""
        path = self._path(name)
        return json.loads(path.read_text()) if path.exists() else None

    def put(self, name: str, result: Result) -> None:
        """It is known, and stays so."""
        _write(self._path(name), result)

    def of(self, cell: Cell) -> Result | None:
        """Return what a cell has measured; one that failed is measured again."""
        found = self.get(cell.name)
        return None if found is None or "failed" in found else found

    def all(self) -> Iterator[tuple[str, Result]]:
        """Give everything that is known, by its name."""
        for path in sorted((self.folder / CELLS).glob("*.json")):
            yield path.stem, json.loads(path.read_text())

    def _path(self, name: str) -> Path:
        return self.folder / CELLS / f"{name}.json"


def _write(path: Path, value: Any) -> None:
    """The file holds the value, or what it held before, whenever this process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    half.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(half, path)
