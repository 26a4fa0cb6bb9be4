"""What the API server answers when it does not do what it was asked: one class for each way to go on."""

import json
from collections.abc import Mapping
from typing import Any


class KubeError(Exception):
    """The API server did not do it. `status` is that of HTTP, 0 when there was no answer."""

    def __init__(self, status: int, message: str, *, reason: str = "", retry_after: float | None = None):
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after
        super().__init__(message)


class NotFound(KubeError):
    """404, and the API server says of this very object that it is not there."""


class Conflict(KubeError):
    """409: it exists already, was changed meanwhile, or is another object by now."""


class Expired(KubeError):
    """410: the version of a list that was asked for is too old; list from the beginning."""


class Rejected(KubeError):
    """400 or 422: what was sent is not valid, and sending it again is no use."""


class Forbidden(KubeError):
    """401 or 403: the operator may not do this."""


class Throttled(KubeError):
    """429: later, please. `retry_after` is in seconds."""


class Unreachable(KubeError):
    """No answer, a 5xx, or one that is not from the API we know; nothing is known of the object."""


CLASSES: Mapping[int, type[KubeError]] = {
    400: Rejected,
    401: Forbidden,
    403: Forbidden,
    409: Conflict,
    410: Expired,
    422: Rejected,
    429: Throttled,
}


def error_of(status: int, body: bytes, *, asked: str, retry_after: str | None = None) -> KubeError:
    """Return the error that an answer stands for; `asked` is method and path, for the sentence."""
    said = _document(body)
    message = str(said.get("message") or body[:200].decode(errors="replace").strip() or "no message")
    reason = str(said.get("reason") or "")
    sentence = f"{asked}: {status} {message}"
    if status == 404:
        # A server that does not know the kind (yet) answers 404 too: that says nothing of the object.
        names_it = bool((said.get("details") or {}).get("name"))
        return (NotFound if names_it else Unreachable)(status, sentence, reason=reason)
    kind = CLASSES.get(status, Unreachable)
    return kind(status, sentence, reason=reason, retry_after=_seconds(retry_after))


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) and said.get("kind") == "Status" else {}


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
