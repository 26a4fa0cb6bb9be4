"""The errors that the API server answers with: one class for each way to react."""

import json
from collections.abc import Mapping
from typing import Any


class KubeError(Exception):
    """The API server did not carry out a request. `status` is that of HTTP, 0 when there was no answer."""

    def __init__(self, status: int, message: str, *, reason: str = "", retry_after: float | None = None):
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after
        super().__init__(message)


class NotFound(KubeError):
    """404, and the API server says that this very object does not exist."""


class Conflict(KubeError):
    """409: the object exists already, was changed meanwhile, or was replaced by another one."""


class Expired(KubeError):
    """410: the requested version of a list is too old; list from the beginning."""


class Rejected(KubeError):
    """400, 422, or 500 to unknown fields: the request is not valid, and sending it again is of no use."""


class DryRunUnsupported(Rejected):
    """400 to a dry run: a webhook that would have to be asked has side effects. It says nothing of what was sent."""


class Forbidden(KubeError):
    """401 or 403: the operator may not do this."""


class TooManyRequests(KubeError):
    """429: the request is to be sent again later. `retry_after` is in seconds."""


class Failed(KubeError):
    """5xx with a reason: the API server could not carry out this request, as when a webhook is down. Other requests may succeed."""


class Unreachable(KubeError):
    """No answer, a 5xx without a reason, or an answer in another form than the API's; nothing is known of the object."""


CLASSES: Mapping[int, type[KubeError]] = {
    400: Rejected,
    401: Forbidden,
    403: Forbidden,
    409: Conflict,
    410: Expired,
    422: Rejected,
    429: TooManyRequests,
}


ANSWERED = frozenset({500, 504})
"""Codes by which the API server says that this request failed; 502 and 503 come from a proxy before it."""

MISTYPED = "failed to create typed patch object"
"""How a server-side apply that names unknown fields is refused: with 500, and without a reason."""

NO_DRY_RUN = "does not support dry run"
"""How the API server ends the sentence about a webhook that it may not ask in a dry run."""


def error_of(status: int, body: bytes, *, asked: str, retry_after: str | None = None) -> KubeError:
    """Return the error that an answer stands for; `asked` is method and path, for the sentence."""
    status_object = _document(body)
    message = str(status_object.get("message") or body[:200].decode(errors="replace").strip() or "no message")
    reason = str(status_object.get("reason") or "")
    sentence = f"{asked}: {status} {message}"
    if status == 404:
        # A server that does not know the kind (yet) answers 404 too: that says nothing of the object.
        names_it = bool((status_object.get("details") or {}).get("name"))
        return (NotFound if names_it else Unreachable)(status, sentence, reason=reason)
    return class_of(status, reason, message, is_said=bool(status_object))(
        status, sentence, reason=reason, retry_after=_seconds(retry_after)
    )


def class_of(status: int, reason: str, message: str, *, is_said: bool = True) -> type[KubeError]:
    """Return the class of an answer other than 404; `is_said`: the API server itself gave the message."""
    if status == 500 and not reason and message.startswith(MISTYPED):
        return Rejected
    if status == 400 and message.endswith(NO_DRY_RUN):
        return DryRunUnsupported
    return CLASSES.get(status, Failed if is_said and status in ANSWERED else Unreachable)


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) and document.get("kind") == "Status" else {}


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
