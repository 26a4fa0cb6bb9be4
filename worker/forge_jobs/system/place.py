"""A place in a program, as text: the file, the line, the function, and the code there."""

import linecache
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType

UNKNOWN = "?"

_NOT_OURS = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_HERE = str(Path(__file__).parents[1])
_AROUND_HANDLERS = ("forge_jobs.handlers.", "forge_jobs.worker.runners")


def reached(innermost: FrameType | None) -> str:
    """Return the place of the innermost frame of the program's own; without one, of the innermost frame."""
    frames = []
    while innermost is not None:
        frames.append((innermost.f_code, innermost.f_lineno))
        innermost = innermost.f_back
    return _first(frames) or (_place(*frames[0]) if frames else UNKNOWN)


def is_in_library(innermost: FrameType | None) -> bool:
    """Whether the library or its driver does something there, rather than a handler that the library has called."""
    for frame, _ in traceback.walk_stack(innermost):
        name = frame.f_globals.get("__name__", "")
        if name.startswith("asyncpg."):
            return True
        if name.startswith("forge_jobs."):
            return not name.startswith(_AROUND_HANDLERS)
    return False


def raised(error: BaseException) -> str:
    """Return the innermost place of the program's own that `error` came from; UNKNOWN when it came from none."""
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return _first(reversed(frames)) or UNKNOWN


def _first(frames: Iterable[tuple[CodeType, int]]) -> str | None:
    for code, line in frames:
        name = code.co_filename
        if not name.startswith((*_NOT_OURS, _HERE, "<frozen ")) and not name.endswith(".pyx"):
            return _place(code, line)
    return None


def _place(code: CodeType, line: int) -> str:
    text = linecache.getline(code.co_filename, line).strip()
    return f"{code.co_filename}:{line} in {code.co_name}" + (f": {text}" if text else "")
