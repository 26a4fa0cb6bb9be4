"""A payload that is bytes already."""

from collections.abc import Mapping
from typing import Any

import msgspec

from forge_jobs.errors import InvalidInput, InvalidPayload


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """A payload that somebody else has encoded: it is stored as it is, and `codec` says how a worker reads it.

    Nothing looks into it before a worker does.
    """

    payload: bytes
    codec: str = "json"

    def checked(self, limit: int) -> bytes:
        """Return the payload. Raises InvalidInput, and InvalidPayload when it has more than `limit` bytes."""
        if not isinstance(self.payload, bytes):
            kind = type(self.payload).__name__
            raise InvalidInput(f"The payload of Encoded is of type {kind}, allowed is bytes.")
        if not isinstance(self.codec, str):
            raise InvalidInput(f"The codec of Encoded is {self.codec!r}, allowed is the name of a codec.")
        if len(self.payload) > limit:
            raise InvalidPayload(
                f"The payload has {len(self.payload):,} bytes as {self.codec}, allowed are {limit:,}."
            )
        return self.payload


Payload = Mapping[str, Any] | list[Any] | tuple[Any, ...] | Encoded
"""What a handler is called with, by name; the items, of a handler of lists; or bytes that say so."""
