"""What of a job nobody is shown: all of its arguments and results, or entries of some names."""

import msgspec

Redacted = bool | tuple[str, ...]
"""True: everything; names: entries of these names, wherever they are; False: nothing."""

HIDDEN = "(redacted)"
"""What is shown instead."""


def encoded(redacted: Redacted) -> str | None:
    """Return it as the row of a kind has it: JSON, or None for nothing."""
    return msgspec.json.encode(redacted).decode() if redacted else None


def decoded(stored: str | None) -> Redacted:
    """Return what a row says; what this release cannot read hides everything."""
    if stored is None:
        return False
    try:
        return msgspec.json.decode(stored, type=bool | tuple[str, ...])
    except msgspec.MsgspecError:
        return True


def both(one: Redacted, other: Redacted) -> Redacted:
    """Return what either of them hides."""
    if isinstance(one, bool):
        return one or other
    return (other or one) if isinstance(other, bool) else tuple(dict.fromkeys((*one, *other)))


def covers(redacted: Redacted, name: str) -> bool:
    """Whether an entry of this name is hidden."""
    return redacted if isinstance(redacted, bool) else name in redacted
