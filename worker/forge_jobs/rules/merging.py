"""Payloads that are lists, as they are enqueued: alone, and added to what waits under the key."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from forge_jobs.codecs.plain import decode, encode
from forge_jobs.errors import InvalidPayload

_LIST = msgspec.json.Decoder(list[msgspec.Raw])
BLANK = b" \t\n\r"

NOTE = "forge_jobs.items"
"""The key of the note at the beginning of a payload, which tells what became of items that are not in it any more."""

EMPTY_NOTE = b'{"%s":{}}' % NOTE.encode()
"""The note before an item that would be read as one."""

_NEVER_MAPPINGS = (str, int, float, bytes, list, tuple, type(None))


def merged(waits: bytes, waits_codec: str, added: bytes, added_codec: str, most_bytes: int) -> bytes:
    """Return the payload with the items of the job that waits, and then those that are added. Raises InvalidPayload.

    Both are lists in JSON. Each item stays as it was written. Those that are added are read, since somebody may have
    encoded them: what nobody can read would spoil those that wait.
    """
    waits, added = waits.strip(BLANK), added.strip(BLANK)
    if (
        (waits_codec, added_codec) != ("json", "json")
        or not (is_list(waits) and waits.endswith(b"]"))
        or not _reads_as_list(added)
    ):
        raise InvalidPayload(
            'key_mode is "merge" and a payload is no list in JSON, allowed are lists, which are joined.'
        )
    waits, added = waits[1:-1].strip(BLANK), added[1:-1].strip(BLANK)
    if waits:  # behind other items nothing is read as a note
        added = added.removeprefix(EMPTY_NOTE + b",")
    both = b",".join(items for items in (waits, added) if items)
    size = len(both) + 2
    if size > most_bytes:
        raise InvalidPayload(
            f"The payload would have {size:,} bytes with what waits under its key, allowed are {most_bytes:,}."
        )
    return b"[" + both + b"]"


def _reads_as_list(payload: bytes) -> bool:
    try:
        _LIST.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def apart(items: Sequence[Any]) -> list[Any]:
    """Return the items of a new job as its payload has them: behind an empty note where the first would be read as one."""
    return [{NOTE: {}}, *items] if items and _passes_for_note(items[0]) else list(items)


def _passes_for_note(item: Any) -> bool:
    if isinstance(item, _NEVER_MAPPINGS):
        return False
    # The program's own types may raise; what JSON has no words for, no other codec reads as a mapping.
    with suppress(Exception):
        if isinstance(item, Mapping) and len(item) != 1:
            return False
        written = encode(item)
        return NOTE.encode() in written and is_note(decode(written))
    return False


def is_note(first: Any) -> bool:
    """Whether the first entry of a payload, as plain objects, is a note and no item."""
    return isinstance(first, dict) and list(first) == [NOTE]


def is_list(payload: bytes) -> bool:
    """Whether a payload in JSON is a list."""
    return payload.lstrip(BLANK).startswith(b"[")
