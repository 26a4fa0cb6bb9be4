"""The kind `http`: sends a request, and what is answered decides what becomes of the job."""

import asyncio
import email.utils
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, TypedDict
from urllib.parse import urlsplit

import msgspec

from forge_jobs.handlers.context import Context
from forge_jobs.model.decision import Dead, Retry, Throttled

if TYPE_CHECKING:
    import aiohttp

TIMEOUT = 30.0  # seconds
LONGEST_TIMEOUT = 86_400.0  # seconds
KEPT = 64 * 1024  # bytes of the answer's body
EXCERPT = 256  # characters of it in the sentence that says how it failed
KEEP_ALIVE = 4.0  # seconds; less than most servers', so that a request seldom meets a connection being closed
LEAST_RETRY_AFTER = 1.0  # seconds; a throttled job costs no attempt, so less would ask for ever and at once
MOST_RETRY_AFTER = 86_400.0  # seconds; the whole queue waits for it

GONE = frozenset({404, 410})
TOO_MANY, UNAVAILABLE = 429, 503

MISSING = "The kind 'http' needs aiohttp, which is not installed; install forge-jobs[http]."

Method = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]{1,20}$")]
Timeout = Annotated[float, msgspec.Meta(gt=0, le=LONGEST_TIMEOUT)]


class HttpResult(TypedDict):
    """What is kept of an answer; `truncated` says that its body was longer."""

    status: int
    body: str
    truncated: bool


class Http:
    """Sends the requests of one worker process with one client, made when first needed."""

    def __init__(self) -> None:
        self._client: aiohttp.ClientSession | None = None

    async def request(
        self,
        ctx: Context,
        url: str,
        method: Method = "POST",
        headers: dict[str, str] | None = None,
        body: Any = None,
        timeout: Timeout = TIMEOUT,
        follow_redirects: bool = False,
    ) -> HttpResult:
        """Send `body` as JSON to `url`, and return what is answered with a status of 200 to 299.

        404 and 410 make the job dead; 429, and 503 that says when to come again, throttle its
        queue; any other status, and no answer within `timeout` seconds, is a failure.
        """
        method = method.upper()
        what = f"{method} {_shown(url)}"
        client = self._open()
        import aiohttp

        try:
            async with (
                asyncio.timeout(timeout),
                client.request(
                    method,
                    url,
                    data=None if body is None else msgspec.json.encode(body),
                    headers=_headers(ctx, headers or {}, has_body=body is not None),
                    skip_auto_headers=("Content-Type",),  # without a body there is no type of it
                    allow_redirects=follow_redirects,
                ) as response,
            ):
                content, truncated = await _read(response)
                status, reason, answered = response.status, response.reason or "", response.headers
                charset = response.charset or "utf-8"
        except TimeoutError:
            raise Retry(reason=f"{what}: no answer within {timeout:g} s") from None
        except aiohttp.InvalidURL:
            raise Dead(f"{what}: this is not an address to send a request to") from None
        except ValueError as error:  # a header that cannot be sent
            raise Dead(f"{what}: {error}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retry(reason=f"{what}: {str(error) or type(error).__name__}") from None
        text = _text(content, charset)
        _judge(status, f"{what}: {status} {reason}".rstrip() + _excerpt(text), answered)
        return HttpResult(status=status, body=text, truncated=truncated)

    async def close(self) -> None:
        """The client is closed."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _open(self) -> "aiohttp.ClientSession":
        if self._client is not None:
            return self._client
        try:
            import aiohttp
        except ImportError:
            raise Retry(reason=MISSING) from None
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEP_ALIVE
            ),  # concurrency is the worker's
            cookie_jar=aiohttp.DummyCookieJar(),  # a job knows nothing of the one before
            timeout=aiohttp.ClientTimeout(total=None),  # each request has its own
            trust_env=True,  # HTTPS_PROXY and its kin
        )
        return self._client


def _judge(status: int, sentence: str, headers: Mapping[str, str]) -> None:
    """Return when the status says success. Raises what else it says."""
    if 200 <= status < 300:
        return
    if status in GONE:
        raise Dead(sentence)
    if status == TOO_MANY or (status == UNAVAILABLE and "Retry-After" in headers):
        raise Throttled(_retry_after(headers), sentence)
    raise Retry(reason=sentence)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After asks for, as seconds or as a date; None when it says neither."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        at, now = _date(text), _date(headers.get("Date", "")) or datetime.now(UTC)
        if at is None:
            return None
        seconds = (at - now).total_seconds()  # by the server's own clock, when it tells it
    return min(max(seconds, LEAST_RETRY_AFTER), MOST_RETRY_AFTER)


def _date(text: str) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _headers(ctx: Context, wanted: Mapping[str, str], *, has_body: bool) -> dict[str, str]:
    """Return the headers of a job's request; those that the payload names win, whatever their capitals."""
    micros = int(ctx.created_at.timestamp() * 1_000_000)
    ours = {
        "User-Agent": f"forge-jobs/{version('forge-jobs')}",
        "Forge-Job-Id": str(ctx.job_id),
        "Forge-Attempt": str(ctx.attempt),
        # The same for all attempts at a job; the moment tells it from a job of another database.
        "Idempotency-Key": f"forge-{ctx.job_id}-{micros}",
        **({"Content-Type": "application/json"} if has_body else {}),
    }
    named = {name.lower() for name in wanted}
    return {**{name: value for name, value in ours.items() if name.lower() not in named}, **wanted}


def _shown(url: str) -> str:
    """Return where a request goes, without what may be secret: user, password and query. Raises Dead."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("http", "https"):
        raise Dead("url is not an address, allowed is http://... or https://...")
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}{'' if port is None else f':{port}'}{parts.path}"


async def _read(response: "aiohttp.ClientResponse") -> tuple[bytes, bool]:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > KEPT:
            return bytes(body[:KEPT]), True
    return bytes(body), False


def _text(content: bytes, charset: str) -> str:
    try:
        return content.decode(charset, "replace")
    except LookupError:
        return content.decode("utf-8", "replace")


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return f": {line[:EXCERPT]}" if line else ""
