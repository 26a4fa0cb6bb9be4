"""Each queue in an environment of its own, below build/peers: nothing of one can change another."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.child import ROOT
from benchmarks.comparison.catalogue import FOLDER, Peer, common

PLACE = ROOT / "build" / "peers"
STAMP = "installed.json"
LAST_WORDS = 400  # characters of an installer's output that are shown


class NotInstalled(Exception):
    """A queue cannot be installed here; the text says why."""


def home(peer: Peer) -> Path:
    """Return the folder of a queue."""
    return PLACE / peer.name


def command(peer: Peer) -> list[str]:
    """Return what runs the adapter of an installed queue."""
    if peer.is_node:
        return [str(home(peer) / "node_modules" / ".bin" / "node"), str(FOLDER / peer.adapter)]
    python = sys.executable if peer.ours else str(home(peer) / "bin" / "python")
    return [python, "-m", f"benchmarks.peers.{peer.adapter.removesuffix('.py')}"]


def folder(peer: Peer) -> Path:
    """Return where the adapter runs, so that it finds what it imports."""
    return home(peer) if peer.is_node else ROOT


def ensure(peer: Peer) -> None:
    """The queue can be run. Raises NotInstalled."""
    if peer.missing:
        raise NotInstalled(peer.missing)
    if peer.ours:
        return
    shared = common()
    wanted = [*peer.node, *shared["node"]] if peer.is_node else [*peer.python, *shared["python"]]
    stamp = home(peer) / STAMP
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return
    shutil.rmtree(home(peer), ignore_errors=True)
    home(peer).mkdir(parents=True)
    if peer.is_node:
        _install_node(peer, wanted)
    else:
        _install_python(home(peer), python_for(peer), wanted)
    stamp.write_text(json.dumps(wanted))


def python_for(peer: Peer) -> str:
    """Return the Python of a queue: ours, unless it needs a newer one. Raises NotInstalled."""
    needed = tuple(map(int, peer.needs.split("."))) if peer.needs else (3,)
    if sys.version_info >= needed:
        return sys.executable
    for found in _pythons(needed[1]):
        if subprocess.run([found, "-V"], capture_output=True).returncode == 0:
            return found
    raise NotInstalled(f"it needs Python {peer.needs} or newer, which this machine does not have")


def _pythons(minor: int) -> Iterator[str]:
    """Give the Pythons of the machine from 3.`minor` on, those of pyenv included, which are in no PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for newer in range(minor, minor + 4):
        if found := shutil.which(f"python3.{newer}"):
            yield found
        yield from map(str, sorted(pyenv.glob(f"3.{newer}.*/bin/python")))


def _install_python(place: Path, python: str, packages: Sequence[str]) -> None:
    _run([python, "-m", "venv", str(place)], place)
    pip = [str(place / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "install", *packages], place)


def _install_node(peer: Peer, packages: Sequence[str]) -> None:
    (home(peer) / "package.json").write_text('{"private": true}\n')
    _run([*_npm(), "install", "--no-audit", "--no-fund", "--save-exact", *packages], home(peer))


def _npm() -> list[str]:
    """Return the machine's npm, or that of a wheel."""
    if shutil.which("npm"):
        return ["npm"]
    place = PLACE / "npm"
    if not (place / "bin" / "npm").exists():
        place.mkdir(parents=True, exist_ok=True)
        _install_python(place, sys.executable, common()["npm"])
    return [str(place / "bin" / "npm")]


def _run(command: Sequence[str], place: Path) -> None:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if "rror" in line]
        raise NotInstalled(" ".join(lines)[-LAST_WORDS:] or f"{command[0]} failed")
