"""Rooms are packages that others use by the names they offer, and that import what they offer when it is first asked for.

So a program that enqueues imports neither workers nor the command line, nor the libraries that those need.
"""

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def offering(room: str, *files: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of the package `room`: what is in `__all__` comes from one of its files, and so do these themselves.

    A name is looked for in the file that is named after it, then in the others. These are imported one after another
    until one has it, so the light ones stand first.
    """

    def offered(name: str) -> Any:
        package = sys.modules[room]
        if name in files:
            return importlib.import_module(f"{room}.{name}")
        if name in package.__all__:
            for file in sorted(files, key=lambda file: file.rpartition(".")[2] != name.lower()):
                module = importlib.import_module(f"{room}.{file}")
                if file.endswith(f".{name}"):
                    return module
                if hasattr(module, name):
                    value = getattr(module, name)
                    setattr(package, name, value)  # so that nobody asks here again
                    return value
        raise AttributeError(f"module {room!r} has no attribute {name!r}", name=name, obj=package)

    return offered


@contextmanager
def unsearched() -> Iterator[None]:
    """Python looks for no garbage in the block, and never again among what is there after it.

    What is imported stays: to pass over it in each full search, and once more when the interpreter
    ends, takes a third of the processor time of a short command (measured with CPython 3.11).
    Where Python did not look for garbage before, all of that is left as it is.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.freeze()
            gc.enable()
