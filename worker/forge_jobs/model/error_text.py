"""What went wrong, as text: how an exception is kept with its job, and how it is said in a sentence.

Exceptions are a program's own code: their text may raise, be endless, or be no text that a
database can hold. Nothing here raises, and something is said always.
"""

import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from forge_jobs.model.mask import LONGEST, masked, present

LONGEST_ERROR = 8000  # characters
LONGEST_LINE = 1000  # characters of the first line of an error
LONGEST_LINK = 300  # characters of the first line of each of its causes and members
LONGEST_OVERVIEW = LONGEST_ERROR // 2  # characters of all first lines
MOST_LINKS = 10_000  # causes and members that are looked at
MOST_FRAMES = 80  # of one traceback
SHORTEST_SHARE = 500  # characters, for less a traceback is left out

_HERE = str(Path(__file__).parents[1])
_STANDARD_LIBRARY = str(Path(traceback.__file__).parent)
_INSTALLED = ("site-packages", "dist-packages")  # below that folder, and not of it


def describe(error: BaseException) -> str:
    """Return an exception as a job's history keeps it, in LONGEST_ERROR characters.

    First comes one line each for the exception, what caused it and what is in its group;
    then what else they say, with their tracebacks, as far as there is room.
    """
    try:
        links = list(_links(error))
        lines = (_first_line(relation, link) for relation, link in links)
        overview = _shortened("\n".join(lines), LONGEST_OVERVIEW)
        return kept("\n".join([overview, *_details(links, LONGEST_ERROR - len(overview))]).rstrip())
    except BaseException:  # no memory, no stack: the job still needs an error
        return f"{type(error).__name__}, which cannot be described."


def sentence(error: BaseException) -> str:
    """Return what `error` says, on one line and without the full stop."""
    return " ".join(_text(error).split()).rstrip(".") or type(error).__name__


def kept(text: str) -> str:
    """Return what is kept of an error's text: not all of a long one, and nothing that is redacted or that no database can hold."""
    return (
        _shortened(masked(text), LONGEST_ERROR)
        .replace("\x00", "\\x00")
        .encode("utf-8", "replace")
        .decode("utf-8")
    )


def _links(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    """Yield the exception, the members of its group and its causes, each once and with its relation to the
    one before.
    """
    seen: set[int] = set()
    waiting = [("", error)]
    while waiting and len(seen) < MOST_LINKS:
        relation, link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield relation, link
        if link.__cause__ is not None:
            waiting.append(("caused by ", link.__cause__))
        elif link.__context__ is not None and not link.__suppress_context__:
            waiting.append(("while handling ", link.__context__))
        if isinstance(link, BaseExceptionGroup):
            waiting.extend(("with ", member) for member in reversed(link.exceptions))


def _details(links: list[tuple[str, BaseException]], room: int) -> Iterator[str]:
    """Give what is not in the first lines: the rest of each text, and its traceback."""
    shown = links[: room // SHORTEST_SHARE]
    for number, (relation, link) in enumerate(shown):
        share = room // (len(shown) - number) - 1
        text, trace = _said(link), _trace(link)
        is_whole = "\n" not in text and len(text) <= _longest_line(relation)
        if is_whole and not trace:
            continue
        # What the overview begins with need not be said again.
        detail = _shortened((trace if is_whole and number == 0 else f"{text}\n{trace}").rstrip(), share)
        room -= len(detail) + 1
        yield detail


def _first_line(relation: str, error: BaseException) -> str:
    return relation + _shortened(_said(error).partition("\n")[0], _longest_line(relation))


def _longest_line(relation: str) -> int:
    return LONGEST_LINK if relation else LONGEST_LINE


def _said(error: BaseException) -> str:
    """Return the exception's type and text, with its notes."""
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    text = _text(error)
    notes = getattr(error, "__notes__", None)
    description = f"{name}: {text}" if text else name
    if isinstance(notes, list):
        description = "\n".join([description, *(masked(note) for note in notes if type(note) is str)])
    return description


def _text(error: BaseException) -> str:
    try:
        # Taken from `str` itself: a text may be of a class of the program's, or too long to be copied whole.
        if present.get() is None:
            return str.__getitem__(str(error), slice(0, 2 * LONGEST_ERROR))
        # What is redacted has to go before anything is cut: a part of it would be left.
        return masked(str.__getitem__(str(error), slice(0, LONGEST + 1)))[: 2 * LONGEST_ERROR]
    except BaseException as problem:
        return f"(its text cannot be made: {type(problem).__name__})"


def _trace(error: BaseException) -> str:
    try:
        trace = _own(error.__traceback__)
        length = sum(1 for _ in traceback.walk_tb(trace))
        if length <= MOST_FRAMES:
            return "".join(traceback.format_tb(trace))
        half = MOST_FRAMES // 2
        return "".join([*traceback.format_tb(trace, half), "  ...\n", *traceback.format_tb(trace, -half)])
    except BaseException:  # the source of a program's module comes from its own loader
        return ""


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames above the handler's: of forge-jobs itself, and of the threads that it runs plain handlers in."""
    own, frame = trace, trace
    while (
        frame is not None and frame.tb_next is not None and (is_ours := _is_above_handlers(frame)) is not None
    ):
        frame = frame.tb_next
        if is_ours:
            own = frame
    return own


def _is_above_handlers(trace: TracebackType) -> bool | None:
    """Whether a frame is ours; False: of the standard library, which we may have called; None: a program's."""
    name = trace.tb_frame.f_code.co_filename
    if name.startswith(_HERE):
        return True
    is_standard = name.startswith(_STANDARD_LIBRARY) and not any(part in name for part in _INSTALLED)
    return False if is_standard else None


def _shortened(text: str, most: int) -> str:
    """Return at most `most` characters, from the beginning and the end of a longer text."""
    if len(text) <= most:
        return text
    half = (most - 5) // 2
    return f"{text[:half]}\n...\n{text[-half:]}" if "\n" in text else f"{text[: most - 1]}…"
