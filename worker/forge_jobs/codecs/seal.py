"""How a sealed payload begins: with the id of its key, which anybody may read. Nothing here needs a key."""

import re

MAGIC = b"\xc1S1"  # neither JSON nor MessagePack begins with this byte
NONCE = 12  # bytes, after the head

KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")
"""What the id of a key may be."""


def head(key_id: str) -> bytes:
    """Return how a payload begins that is sealed with this key."""
    return MAGIC + bytes([len(key_id)]) + key_id.encode()


def key_id_of(payload: bytes) -> str | None:
    """Return the id of the key with which a payload is sealed; None: it is not sealed, or damaged there."""
    if not payload.startswith(MAGIC) or len(payload) <= len(MAGIC):
        return None
    begins = len(MAGIC) + 1
    key_id = payload[begins : begins + payload[len(MAGIC)]].decode("ascii", "replace")
    return key_id if KEY_ID.fullmatch(key_id) and len(key_id) == payload[len(MAGIC)] else None
