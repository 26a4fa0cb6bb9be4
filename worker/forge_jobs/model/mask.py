"""Values that no text about a job may show, though an exception says them."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from forge_jobs.model.redaction import HIDDEN

SHORT = 4  # characters; a shorter value is hidden where it is a word of its own


class Mask:
    """Hides values in texts. It may be given more of them at any time."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = frozenset(secrets) - {""}
        self._pattern: re.Pattern[str] | None = None

    def add(self, secrets: Iterable[str]) -> None:
        """These are hidden, too."""
        self.secrets |= frozenset(secrets) - {""}
        self._pattern = None

    def over(self, text: str) -> str:
        """Return the text without the values."""
        if not self.secrets:
            return text
        if self._pattern is None:
            longest_first = sorted(self.secrets, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(_wanted, longest_first)))
        return self._pattern.sub(HIDDEN, text)


def _wanted(secret: str) -> str:
    wanted = re.escape(secret)
    return wanted if len(secret) >= SHORT else rf"(?<!\w){wanted}(?!\w)"


present: ContextVar[Mask | None] = ContextVar("mask", default=None)
"""That of the job whose errors are put into words here; None: nothing is hidden."""


def masked(text: str) -> str:
    """Return the text without what the present mask hides."""
    mask = present.get()
    return text if mask is None else mask.over(text)


@contextmanager
def masking(mask: Mask | None) -> Iterator[None]:
    """Texts that are made within hide what the mask does."""
    token = present.set(mask)
    try:
        yield
    finally:
        present.reset(token)
