"""Callback tokens: what may be sent to which job until when, signed, so that outside of a program nobody can make one.

A token is the URL-safe base64 of what it says, a point, and that of its signature. It holds no secret of the job.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from forge_jobs.errors import InvalidToken
from forge_jobs.model.signal import Callback, TokenFacts

LONGEST = 2_000
"""Characters; a longer text is no token."""

_PURPOSE = b"forge-jobs callback 1:"


class _Said(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    origin: str
    job_id: int
    of_replaced: int
    signal: str
    use: str
    expires_at: float


def made(callback: Callback, origin: str, secrets: Sequence[str]) -> str:
    """Return the token that says this of the database `origin`, signed with the first of the secrets. Raises InvalidToken when there is none."""
    said = _Said(
        origin,
        callback.job_id,
        callback.of_replaced,
        callback.signal,
        callback.use,
        callback.expires_at.timestamp(),
    )
    body = base64.urlsafe_b64encode(msgspec.json.encode(said)).rstrip(b"=")
    return b".".join((body, _signature(body, _required(secrets)[0]))).decode()


def read(token: object, secrets: Sequence[str], facts: TokenFacts) -> Callback:
    """Return what the token says, which any of the secrets may have signed.

    Raises InvalidToken when none has, when it was made in another database than that of `facts`, or has expired.
    """
    if not isinstance(token, str) or len(token) > LONGEST or not token.isascii():
        raise InvalidToken("it is no callback token")
    body, _, signature = token.encode().partition(b".")
    own = [_signature(body, secret) for secret in _required(secrets)]
    if not any([hmac.compare_digest(signature, one) for one in own]):
        raise InvalidToken("it was not signed here, or was changed")
    try:
        said = msgspec.json.decode(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)), type=_Said)
    except (binascii.Error, msgspec.MsgspecError):
        raise InvalidToken("another release has made it") from None
    if said.origin != facts.origin:
        raise InvalidToken("it is for a job of another database")
    expires_at = datetime.fromtimestamp(said.expires_at, UTC)
    if expires_at <= facts.now:
        raise InvalidToken(f"it has expired on {expires_at:%Y-%m-%d %H:%M:%S} UTC")
    return Callback(said.job_id, said.signal, said.use, expires_at, said.of_replaced)


def _required(secrets: Sequence[str]) -> Sequence[str]:
    if not secrets:
        raise InvalidToken("FORGE_CALLBACK_SECRETS is not set, with which tokens are signed")
    return secrets


def _signature(body: bytes, secret: str) -> bytes:
    digest = hmac.digest(secret.encode(), _PURPOSE + body, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=")
