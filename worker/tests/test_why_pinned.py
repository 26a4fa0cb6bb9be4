"""What is said of a job that one version of the program has to go on with."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs.model.job import State
from forge_jobs.model.pin import Pin
from forge_jobs.model.version import VersionState
from tests.test_client_why import NOW, WORKER, heard_of, job, reasons, waiting

PIN = Pin("1.0", NOW)
IN_POOL = Pin("1.0", NOW, "pool", "rm452vxk", VersionState.DRAINING)
OLD = replace(WORKER, version="1.0")
OLD_IN_POOL = replace(OLD, pool="pool", version_id="rm452vxk", is_open=False)
NEW = replace(WORKER, id=8, label="new", version="2.0")

BEGAN = "Version 1.0 of the program has begun it, and has to go on with it"
BEGAN_IN_POOL = "Version 1.0 (rm452vxk) of the program has begun it, and has to go on with it"
NOBODY = "No live worker of the version that has begun it serves queue 'mail'."
UNPIN = "To let any version go on with it: forge-jobs jobs unpin 1."


def pending(pin: Pin | None, *workers: Any, **facts: Any) -> list[str]:
    return reasons(job(State.PENDING, pin=pin, **facts), workers, waiting=waiting())


def test_a_pinned_job_with_a_worker_of_its_version_waits_for_that() -> None:
    assert pending(PIN, OLD, NEW) == [
        "Nothing holds it back; the next free worker of its queue takes it.",
        f"{BEGAN}.",
    ]


def test_a_pinned_job_whose_version_has_no_worker_says_how_to_start_one_or_do_without() -> None:
    assert pending(PIN, NEW) == [
        NOBODY,
        f"{BEGAN}; no worker of it is alive: start one with FORGE_WORKER_VERSION=1.0.",
        UNPIN,
    ]


def test_a_version_that_drains_takes_what_is_pinned_to_it() -> None:
    assert pending(IN_POOL, OLD_IN_POOL, NEW) == [
        "Nothing holds it back; the next free worker of its queue takes it.",
        f"{BEGAN_IN_POOL}.",
    ]


@pytest.mark.parametrize(
    ("state", "where"),
    [
        (VersionState.DRAINING, "no worker of it is alive: its operator starts one"),
        (VersionState.FAILED, "but that version failed"),
        (VersionState.RETIRED, "but that version is gone for good."),
        (None, "but that version is gone for good."),
    ],
)
def test_it_is_said_where_a_version_is_that_has_no_worker(state: VersionState | None, where: str) -> None:
    nobody, began, unpin = pending(replace(IN_POOL, state=state), NEW)

    assert (nobody, unpin) == (NOBODY, UNPIN)
    assert began.startswith(f"{BEGAN_IN_POOL}; {where}")


def test_a_job_that_sleeps_says_that_its_version_has_to_go_on_with_it() -> None:
    asleep = job(State.SCHEDULED, pin=PIN, run_at=NOW + timedelta(hours=1))

    assert f"{BEGAN}." in reasons(asleep, [OLD])
    assert UNPIN in reasons(asleep, [heard_of(3600, version="1.0")])


def test_a_job_that_has_ended_needs_no_version() -> None:
    assert not any("Version" in one for one in reasons(job(State.DONE, pin=PIN), [NEW]))
