"""What plugins of a program send along with a job to those of its worker: short texts by name."""

from collections.abc import Mapping

import msgspec

from forge_jobs.errors import InvalidInput

LARGEST_META = 16_384
"""Bytes, encoded: a trace and its baggage are 9 KiB at most."""


def encoded(meta: Mapping[str, str]) -> str | None:
    """Return it as it is stored; None: nothing. Raises InvalidInput."""
    if not meta:
        return None
    for name, value in meta.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidInput(f"meta has {name!r}: {value!r}, allowed are texts.")
    try:
        text = msgspec.json.encode(dict(meta))
    except UnicodeEncodeError:
        raise InvalidInput(
            "meta has half a surrogate pair, allowed is text that can be written as UTF-8."
        ) from None
    if len(text) > LARGEST_META:
        raise InvalidInput(f"meta has {len(text):,} bytes, allowed are {LARGEST_META:,}.")
    return text.decode()


def decoded(meta: str | None) -> dict[str, str]:
    """Return what was stored; nothing where it cannot be read."""
    if meta is None:
        return {}
    try:
        return msgspec.json.decode(meta, type=dict[str, str])
    except msgspec.MsgspecError:  # written by SQL
        return {}
