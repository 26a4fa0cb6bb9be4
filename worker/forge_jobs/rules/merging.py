"""What two payloads under one key become where their items are kept together."""

import msgspec

from forge_jobs.errors import InvalidPayload

_LIST = msgspec.json.Decoder(list[msgspec.Raw])
BLANK = b" \t\n\r"


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
    both = b",".join(items for items in (waits[1:-1].strip(BLANK), added[1:-1].strip(BLANK)) if items)
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


def is_list(payload: bytes) -> bool:
    """Whether a payload in JSON is a list."""
    return payload.lstrip(BLANK).startswith(b"[")
