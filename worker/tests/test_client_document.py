"""Facts as JSON: every fact can be written, and says what it means."""

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from forge_jobs.client.document import document, readable
from forge_jobs.model.cron import CronConfig
from forge_jobs.model.job import FOREVER, Counts, Enqueued, Failure, Job, State
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.rate_limit import RateLimit
from forge_jobs.model.worker import Leader, WorkerInfo
from forge_jobs.rules.why import Why

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
JOB = Job(
    1, "mail", "send", State.DEAD, b'{"to":"ada"}', "json", 0, 2, FOREVER, timedelta(seconds=90), None, NOW,
    worker_id=2**62, failures=(Failure(1, NOW, "w", "no"),),
)  # fmt: skip


@pytest.mark.parametrize(
    "fact",
    [
        JOB,
        Enqueued(1),
        Counts("mail", oldest_pending_at=NOW),
        QueueConfig("mail", cooldown_until=NOW),
        RateLimit("slack", 5, 1.0, emptied_at=NOW),
        CronConfig("c", "@daily", "k"),
        WorkerInfo(2**62, "w", "host", 1, "1", ("mail",), ("send",), 10, beat_at=NOW, stuck=(7,)),
        Leader(2**62, "w", 3, NOW),
        Why(1, State.PENDING, ("Because.",)),
    ],
    ids=lambda fact: type(fact).__name__,
)
def test_every_fact_is_a_document(fact: object):
    assert json.loads(json.dumps(document(fact)))  # type: ignore[arg-type]


def test_a_job_is_readable():
    shown = document(JOB)

    assert shown["payload"] == {"to": "ada"}
    assert (shown["timeout_seconds"], shown["max_attempts"], shown["state"]) == (90.0, None, "dead")
    assert shown["created_at"] == "2026-03-01T12:00:00+00:00"
    assert shown["failures"] == [
        {"attempt": 1, "at": "2026-03-01T12:00:00+00:00", "worker": "w", "error": "no"}
    ]


def test_the_id_of_a_worker_is_text_since_a_javascript_number_cannot_hold_it():
    assert document(JOB)["worker_id"] == str(2**62)


@pytest.mark.parametrize(
    ("encoded", "codec", "shown"),
    [
        (b'{"a":1}', "json", {"a": 1}),
        (
            msgspec.msgpack.encode({"at": NOW, "raw": b"\x00"}),
            "msgpack",
            {"at": "2026-03-01T12:00:00Z", "raw": "AA=="},
        ),
        (msgspec.msgpack.encode(float("nan")), "msgpack", None),
        (b"{", "json", {"base64": "ew=="}),
        (b"\xff", "morse", {"base64": "/w=="}),
        (None, "json", None),
    ],
)
def test_a_payload_is_shown_decoded_or_as_it_is(encoded: bytes | None, codec: str, shown: object):
    assert readable(encoded, codec, False) == shown
