"""Sealed payloads: AES-256-GCM around what another codec writes. Comes with the extra `sealed`.

The library is cryptography, which most programs that encrypt anything have already: it is maintained by the Python
Cryptographic Authority, has wheels for every platform, and Python itself has no AES.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from forge_jobs.codecs import bound, seal
from forge_jobs.codecs.wrapping import Wrapping
from forge_jobs.errors import InvalidInput, MissingCodec

KEY = 32  # bytes of a key


class Sealed(Wrapping):
    """Seals with the first of its keys, and opens what any of them has sealed."""

    hides = True

    def __init__(self, inner: str, keys: Mapping[str, bytes]) -> None:
        self.inner = inner
        self._keys = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._current = next(iter(keys))

    def wrap(self, payload: bytes) -> bytes:
        """Return the payload sealed, for whatever it is."""
        return self.wrap_for(payload, "")

    def unwrap(self, payload: bytes) -> bytes:
        """Return what was sealed for whatever it is, as `unwrap_for`."""
        return self.unwrap_for(payload, "")

    def wrap_for(self, payload: bytes, of: str) -> bytes:
        """Return the payload sealed, under a number that is used once; no job of another kind, or other job, opens it."""
        head, nonce = seal.head(self._current), os.urandom(seal.NONCE)
        return head + nonce + self._keys[self._current].encrypt(nonce, payload, self._bound(head, of))

    def unwrap_for(self, payload: bytes, of: str) -> bytes:
        """Return what was sealed. Raises ValueError when it was changed or is of another kind or job, and MissingCodec when its key is not there."""
        key_id = seal.key_id_of(payload)
        if key_id is None:
            raise ValueError("it is not sealed, or damaged")
        key = self._keys.get(key_id)
        if key is None:
            raise MissingCodec(
                f"it is sealed with the key {key_id!r}, which this program lacks; keys: {', '.join(self._keys)}"
            )
        head = seal.head(key_id)
        nonce, rest = payload[len(head) : len(head) + seal.NONCE], payload[len(head) + seal.NONCE :]
        # Values other than payloads may have been sealed for whatever they are.
        for bound_to in (of,) if bound.is_payload(of) else (of, ""):
            with suppress(InvalidTag, ValueError):  # the latter: too few bytes
                return key.decrypt(nonce, rest, self._bound(head, bound_to))
        other = ""
        if of:
            other = f"for another {'kind of job' if bound.is_payload(of) else 'job or place'}, or "
        raise ValueError(f"it is damaged, or was sealed {other}with another key {key_id!r}")

    def _bound(self, head: bytes, of: str) -> bytes:
        """Return what has to be the same when it is opened."""
        return b"\0".join((head + self.inner.encode(), of.encode()))

    def __repr__(self) -> str:
        return f"<Sealed {self.inner!r} with {', '.join(self._keys)}>"


def sealed(inner: str = "json", *, keys: Mapping[str, bytes | str] | str) -> Sealed:
    """Return a codec, to be registered, that seals what the codec `inner` writes, so that who reads the database cannot.

    `keys` are 32 bytes each, as bytes or in base64, by their ids: the first one seals, and all of them open. They may be
    one text, "2026-11:BASE64 2026-05:BASE64", as an environment variable has it. Raises InvalidInput, which shows no key.
    """
    by_id = _of_text(keys) if isinstance(keys, str) else keys
    if not isinstance(by_id, Mapping) or not by_id:
        raise InvalidInput(
            f"keys of sealed is {'empty' if by_id in ({}, '') else 'of type ' + type(keys).__name__}, "
            "allowed are keys by their ids, at least one."
        )
    return Sealed(inner, {_checked_id(key_id): _key(key_id, key) for key_id, key in by_id.items()})


def new_key() -> str:
    """Return a key that was made just now, in base64."""
    return base64.b64encode(AESGCM.generate_key(KEY * 8)).decode()


def _of_text(text: str) -> dict[str, str]:
    keys: dict[str, str] = {}
    for place, entry in enumerate(text.replace(",", " ").split()):
        key_id, colon, key = entry.partition(":")
        if not colon:
            raise InvalidInput(
                f"Entry {place} of the keys has no colon, allowed is ID:BASE64, with spaces between entries."
            )
        if key_id in keys:
            raise InvalidInput(f"The keys have {key_id!r} twice, allowed are different ids.")
        keys[key_id] = key
    return keys


def _checked_id(key_id: object) -> str:
    if not isinstance(key_id, str) or not seal.KEY_ID.fullmatch(key_id):
        shown = f"{len(key_id)} characters" if isinstance(key_id, str) else f"a {type(key_id).__name__}"
        raise InvalidInput(  # which may be a key in the wrong place
            f"The id of a key is {shown}, allowed are 1 to 32 characters of a-z, A-Z, 0-9, _, . and -."
        )
    return key_id


def _key(key_id: str, key: bytes | str) -> bytes:
    allowed = f"allowed are {KEY} bytes, or these in base64"
    if isinstance(key, str):
        try:
            key = base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput(f"The key {key_id!r} is a text that is no base64, {allowed}.") from None
    if not isinstance(key, bytes):
        raise InvalidInput(f"The key {key_id!r} is of type {type(key).__name__}, {allowed}.")
    if len(key) != KEY:
        raise InvalidInput(f"The key {key_id!r} has {len(key)} bytes, {allowed}.")
    return key
