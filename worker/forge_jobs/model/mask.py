"""Values that no text about a job may show, though an exception says them."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice

from forge_jobs.model.redaction import HIDDEN, Redacted

SHORT = 4  # characters; a shorter value is hidden where it is a word of its own
LONG = 8  # characters
FEW = 100  # values that are looked for one by one
MOST = 20_000  # values that are looked for; of a job that has more, no text is shown at all
LONGEST = 50_000  # characters of a text in which they are looked for; the rest is left out


class Mask:
    """Hides values in texts. It may be given more of them at any time."""

    def __init__(self, secrets: Iterable[str] = (), redacted: Redacted = True) -> None:
        self.redacted = redacted  # which of the values that its job gets later on are to be hidden
        self.secrets: frozenset[str] = frozenset()
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """These are hidden, too."""
        self.secrets |= frozenset(islice(secrets, MOST + 1)) - {""}

    def over(self, text: str) -> str:
        """Return the text without the values."""
        if len(self.secrets) > MOST:
            return HIDDEN
        is_cut = len(text) > LONGEST
        text = text[:LONGEST]
        if found := sorted(self._in(text), key=len, reverse=True):
            text = re.sub("|".join(map(_wanted, found)), HIDDEN, text)
        if is_cut and self.secrets:  # it may end in the beginning of a value
            text = text[: max(0, len(text) - max(map(len, self.secrets)))] + "…"
        return text

    def _in(self, text: str) -> Iterator[str]:
        """Yield the values that are in the text: few, as a rule, and to look for each of many takes long."""
        if len(self.secrets) <= FEW:
            yield from (secret for secret in self.secrets if secret in text)
            return
        parts = {size: {text[at : at + size] for at in range(len(text) - size + 1)} for size in (LONG, SHORT)}
        for secret in self.secrets:
            size = LONG if len(secret) >= LONG else SHORT
            if len(secret) < SHORT or (secret[:size] in parts[size] and secret[-size:] in parts[size]):
                if secret in text:
                    yield secret


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
