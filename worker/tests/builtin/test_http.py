"""The kind `http`, against a real server."""

import email.utils
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs import Dead, State
from forge_jobs.builtin import http
from tests.builtin.conftest import Runs
from tests.builtin.server import Answer, Server
from tests.working.eventually import eventually


async def test_the_body_is_posted_as_json_and_the_answer_is_the_result(runs: Runs, server: Server) -> None:
    server.answer(Answer(201, b"made"))

    result = await runs.done("http", url=server.url("/orders?a=b"), body={"order": 42})

    assert result == {"status": 201, "body": "made", "truncated": False}
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/orders?a=b")
    assert json.loads(request.body) == {"order": 42}
    assert request.headers["content-type"] == "application/json"


async def test_a_request_says_which_job_it_is_of(runs: Runs, server: Server) -> None:
    job_id = await runs.begin("http", url=server.url())
    job = await runs.ended(job_id)

    headers = server.requests[0].headers
    micros = int(job.created_at.timestamp() * 1_000_000)
    assert headers["forge-job-id"] == str(job_id)
    assert headers["forge-attempt"] == "1"
    assert headers["idempotency-key"] == f"forge-{job_id}-{micros}"
    assert "content-type" not in headers


async def test_all_attempts_at_a_job_have_the_same_idempotency_key(runs: Runs, server: Server) -> None:
    await runs.forge.queues.set("default", backoff_enabled=False)
    server.answer(Answer(500), Answer(200))

    job = await runs.forge.enqueue("http", {"url": server.url()}, queue="default")
    await runs.forge.wait(job.id, timeout=30)

    assert [request.headers["forge-attempt"] for request in server.requests] == ["1", "2"]
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


async def test_method_and_headers_can_be_chosen(runs: Runs, server: Server) -> None:
    await runs.done(
        "http",
        url=server.url(),
        method="put",
        headers={"content-type": "application/merge-patch+json", "Authorization": "Bearer x"},
        body=None,
    )

    [request] = server.requests
    assert request.method == "PUT"
    assert request.headers["content-type"] == "application/merge-patch+json"
    assert request.headers["authorization"] == "Bearer x"
    assert request.body == b""


@pytest.mark.parametrize("status", [302, 400, 403, 409, 500, 502, 503])
async def test_any_other_status_is_a_failure_that_shows_it(runs: Runs, server: Server, status: int) -> None:
    server.answer(Answer(status, b"sorry,\n  not now", {"Location": server.url("/elsewhere")}))

    error = await runs.error("http", url=server.url())

    assert error.startswith(f"POST {server.url()}: {status}")
    assert error.endswith(": sorry, not now")
    assert len(server.requests) == 1


async def test_a_failure_is_tried_again(runs: Runs, server: Server) -> None:
    await runs.forge.queues.set("default", backoff_enabled=False)
    server.answer(Answer(500), Answer(502), Answer(200, b"at last"))

    job = await runs.forge.enqueue("http", {"url": server.url()}, queue="default")

    assert (await runs.forge.wait(job.id, timeout=30))["body"] == "at last"


@pytest.mark.parametrize("status", [404, 410])
async def test_what_is_gone_is_not_asked_for_again(runs: Runs, server: Server, status: int) -> None:
    server.answer(Answer(status, b"nothing here"))

    job = await runs.forge.enqueue("http", {"url": server.url()}, queue="default", max_attempts=5)
    ended = await runs.ended(job.id)

    assert (ended.state, ended.attempt) == (State.DEAD, 1)
    assert (
        ended.error
        == f"POST {server.url()}: {status} {'Not Found' if status == 404 else 'Gone'}: nothing here"
    )


@pytest.mark.parametrize("status", [429, 503])
async def test_a_service_that_throttles_is_waited_for_without_an_attempt(
    runs: Runs, server: Server, status: int
) -> None:
    server.answer(Answer(status, headers={"Retry-After": "300"}))
    before = datetime.now(UTC)

    job_id = await runs.begin("http", url=server.url())
    job = await eventually(lambda: runs._when(job_id, State.SCHEDULED))

    assert job.attempt == 0
    assert timedelta(seconds=290) < job.run_at - before < timedelta(seconds=330)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0", 1.0),
        ("120", 120.0),
        ("99999999999999999999", 86_400.0),
        ("Wed, 21 Oct 2026 07:30:00 GMT", 120.0),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 1.0),
        ("Wed, 21 Oct 2026 07:30:00", 120.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("Wed, 99 Oct 2026 99:30:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_servers_clock(said: str, seconds: float | None) -> None:
    assert http._retry_after({"Retry-After": said, "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}) == seconds


def test_without_a_date_of_the_server_our_clock_counts() -> None:
    said = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)

    assert http._retry_after({"Retry-After": said}) == pytest.approx(100, abs=3)


async def test_redirects_are_followed_when_asked_for(runs: Runs, server: Server) -> None:
    server.answer(Answer(307, headers={"Location": "/elsewhere"}), Answer(200, b"here"))

    result = await runs.done("http", url=server.url(), body=[1], follow_redirects=True)

    assert result["body"] == "here"
    assert [(request.path, request.body) for request in server.requests] == [
        ("/hook", b"[1]"),
        ("/elsewhere", b"[1]"),
    ]


async def test_a_server_that_does_not_answer_in_time_is_a_failure(runs: Runs, server: Server) -> None:
    server.answer(Answer(hold=True))

    error = await runs.error("http", url=server.url(), timeout=0.2)

    assert error == f"POST {server.url()}: no answer within 0.2 s"


async def test_nobody_listening_is_a_failure(runs: Runs) -> None:
    with Server() as server:
        url = server.url()

    error = await runs.error("http", url=url)

    assert error.startswith(f"POST {url}: Cannot connect to host 127.0.0.1")
    assert "\n" not in error


async def test_a_request_ends_when_its_job_is_cancelled(runs: Runs, server: Server) -> None:
    server.answer(Answer(hold=True))
    job_id = await runs.begin("http", url=server.url())
    await eventually(lambda: server.requests)

    await runs.forge.jobs.cancel(job_id)

    assert (await runs.ended(job_id)).error == "cancelled by user"


async def test_of_a_long_answer_the_beginning_is_kept(runs: Runs, server: Server) -> None:
    server.answer(Answer(200, b"x" * (http.KEPT + 1)))

    result = await runs.done("http", url=server.url())

    assert (len(result["body"]), result["truncated"]) == (http.KEPT, True)


async def test_an_answer_of_any_bytes_is_kept_as_text(runs: Runs, server: Server) -> None:
    server.answer(Answer(200, b"\xff\x00\xe4", {"Content-Type": "text/plain; charset=no-such"}))

    assert (await runs.done("http", url=server.url()))["body"] == "\ufffd\x00\ufffd"


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "ftp://example.com/", "file:///etc/passwd", "http://", "http://[", "http://a:b/"],
)
async def test_only_addresses_of_http_are_asked(runs: Runs, url: str) -> None:
    error = await runs.error("http", url=url)

    assert error == "url is not an address, allowed is http://... or https://..."


async def test_a_header_that_cannot_be_sent_makes_the_job_dead(runs: Runs, server: Server) -> None:
    error = await runs.error("http", url=server.url(), headers={"X-A": "b\r\nX-Evil: 1"})

    assert error.startswith(f"POST {server.url()}: ")
    assert server.requests == []


def test_errors_show_neither_password_nor_query() -> None:
    assert http._shown("https://ann:secret@example.com:8443/a?token=1#x") == "https://example.com:8443/a"
    assert http._shown("http://[::1]/a") == "http://[::1]/a"
    with pytest.raises(Dead) as refused:
        http._shown("ftp://ann:secret@example.com")
    assert "secret" not in str(refused.value)


async def test_requests_share_one_client_that_is_closed_with_the_forge(runs: Runs, server: Server) -> None:
    for _ in range(3):
        await runs.done("http", url=server.url())

    assert server.connections == 1
    # That nothing stays open is shown by the tests' settings: a warning of it is an error.


async def test_no_cookie_goes_from_one_job_to_the_next(runs: Runs, server: Server) -> None:
    server.answer(Answer(200, headers={"Set-Cookie": "who=first; Path=/"}))

    await runs.done("http", url=server.url())
    await runs.done("http", url=server.url())

    assert "cookie" not in server.requests[1].headers


def test_without_aiohttp_the_other_kinds_work_and_this_one_says_what_is_missing() -> None:
    program = (
        "import sys, asyncio; sys.modules['aiohttp'] = None\n"
        "from forge_jobs.builtin import forge\n"
        "from forge_jobs.builtin.http import Http\n"
        "assert set(forge.handlers) == {'http', 'command', 'echo', 'sleep'}\n"
        "try: asyncio.run(Http().request(None, 'http://example.com'))\n"
        "except Exception as error: print(type(error).__name__, error.reason)\n"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert said.stdout.strip() == f"Retry {http.MISSING}", said.stderr
