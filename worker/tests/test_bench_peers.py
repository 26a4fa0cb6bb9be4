"""The comparison with other queues: what it counts, keeps and shows. Nothing here depends on how fast anything is."""

import asyncio
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import flows_beside
from benchmarks.comparison import goals, page, stress
from benchmarks.comparison.catalogue import FOLDER, Peer, peers
from benchmarks.comparison.cells import COLUMNS, IDLE, LOAD, THROUGHPUT, Cell, Column, What, cells
from benchmarks.comparison.chart import Bar, svg
from benchmarks.comparison.measure import (
    Record,
    Result,
    Subject,
    accounts,
    over_time,
    pickup,
    pickups,
    single,
    throughput,
)
from benchmarks.comparison.place import OnSqlite, fresh
from benchmarks.comparison.process import AdapterFailed, run
from benchmarks.comparison.results import OtherRun, Results
from benchmarks.comparison.rounds import Rounds, shown, shuffled
from benchmarks.comparison.table import LINES, Found, Range, soaks, tables
from benchmarks.processor import busy_seconds, tree_seconds
from benchmarks.server import Server

OURS = peers()["forge-jobs-sqlite"]
DATABASES = {"forge-jobs": "postgres", "other": "postgres", "file": "sqlite"}


@pytest.fixture
async def ours() -> Subject:
    """forge-jobs on SQLite, which needs nothing that has to be installed."""
    return Subject(OURS, await run(OURS, "describe"), "best", seconds=0.2)


@pytest.mark.parametrize("peer", peers().values(), ids=lambda peer: peer.name)
def test_a_queue_has_an_adapter_and_pinned_packages_or_the_reason_why_not(peer: Peer) -> None:
    if peer.missing:
        assert peer.adapter == ""
    else:
        assert (FOLDER / peer.adapter).is_file()
        assert peer.ours or peer.python or peer.node
        assert all("==" in package for package in peer.python)
        assert all("@" in package[1:] for package in peer.node)


def test_an_adapter_is_of_one_queue() -> None:
    adapters = [peer.adapter for peer in peers().values() if not peer.missing]
    shared = {"__init__.py", "adapter.py", "adapter.mjs", "threads.py"}

    assert sorted(adapters) == sorted(
        file.name for file in FOLDER.iterdir() if file.suffix in (".py", ".mjs") and file.name not in shared
    )


def test_every_cell_has_a_name_of_its_own() -> None:
    names = [cell.name for cell in cells(DATABASES, rounds=2)]

    assert len(names) == len(set(names))


def test_only_what_was_named_is_measured() -> None:
    found = list(cells(DATABASES, 1, ["other", "throughput", "best"]))

    assert {(cell.peer, cell.settings, cell.column.what) for cell in found} == {
        ("other", "best", "throughput")
    }


def test_one_column_can_be_named() -> None:
    found = list(cells(DATABASES, 1, ["best", "throughput-sleep-2", "idle"]))

    assert {cell.column for cell in found} == {Column(What.THROUGHPUT, "sleep", 2), IDLE}


def test_a_file_is_not_asked_for_what_only_a_server_has() -> None:
    whats = {cell.column.what for cell in cells(DATABASES, 1, ["file"])}

    assert whats == {What.THROUGHPUT, What.SINGLE, What.IDLE}


def test_a_queue_of_one_process_is_not_given_two() -> None:
    columns = [cell.column for cell in cells(DATABASES, 1, ["file"], alone=["file"])]

    assert Column(What.THROUGHPUT) in columns
    assert Column(What.THROUGHPUT, processes=2) not in columns
    assert Column(What.SINGLE, processes=16) in columns  # those are callers of one process


def test_of_a_bare_loop_only_the_throughput_is_measured() -> None:
    found = [cell for cell in cells(DATABASES, 1, bare=["other"]) if cell.peer == "other"]

    assert found == [Cell("other", "best", THROUGHPUT, 1)]


def test_rounds_follow_each_other_and_are_shuffled_in_themselves() -> None:
    given = list(cells(DATABASES, rounds=3))
    order = shuffled(given, seed=1)

    assert sorted(order, key=given.index) == given
    assert [cell.turn for cell in order] == sorted(cell.turn for cell in given)
    assert order == shuffled(given, seed=1)
    first, second = ([cell.column for cell in order if cell.turn == turn] for turn in (1, 2))
    assert first != second


def test_the_load_is_found_before_it_is_used() -> None:
    order = [cell.column.what for cell in shuffled(cells(DATABASES, rounds=1), seed=1)]
    first = order.index(What.LOAD)

    assert set(order[first:]) == {What.LOAD}


def test_lost_and_repeated_jobs_are_counted_over_all_processes() -> None:
    records = [Record([0, 1, 2], [1, 1, 1]), Record([2, 4], [1, 1])]

    assert accounts(records, jobs=6) == {"lost": 2, "repeated": 1}


def test_a_pickup_is_from_the_call_to_the_first_start() -> None:
    sent = Record([0, 1], [1_000_000, 2_000_000])
    records = [Record([1, 0], [5_000_000, 4_000_000]), Record([0], [9_000_000])]

    assert sorted(pickups(sent, records)) == [3.0, 3.0]


async def test_throughput_says_what_was_run(ours: Subject) -> None:
    found = await throughput(ours, Server(), THROUGHPUT, jobs=200)

    assert (found["jobs"], found["left"], found["lost"], found["repeated"]) == (200, 0, 0, 0)
    assert found["rate"] > 0
    assert found["wal"] is None


async def test_two_processes_share_the_jobs(ours: Subject) -> None:
    found = await throughput(ours, Server(), Column(What.THROUGHPUT, "sleep", 2), jobs=200)

    assert (found["left"], found["lost"], found["repeated"]) == (0, 0, 0)


async def test_jobs_are_enqueued_one_by_one_for_a_while(ours: Subject) -> None:
    found = await single(ours, Server(), Column(What.SINGLE, processes=4))

    assert found["jobs"] > 0
    assert found["seconds"] >= 0.2


async def test_pickups_are_measured_of_every_job(ours: Subject) -> None:
    found = await pickup(ours, Server(), IDLE, rate=200.0)

    assert (found["lost"], found["repeated"]) == (0, 0)
    assert 0 < found["p50"] <= found["p99"]


@pytest.mark.parametrize("situation", ["clean", "scheduled-1m", "queues-200", "swept-1m"])
async def test_throughput_in_a_situation_counts_what_was_begun(ours: Subject, situation: str) -> None:
    found = await stress.throughput(ours, Server(), situation, jobs=100)

    assert (found["jobs"], found["left"]) == (100, 0)
    assert found["rate"] > 0


async def test_only_the_first_of_many_waiting_jobs_are_counted(ours: Subject) -> None:
    found = await stress.throughput(ours, Server(), "waiting-1m", jobs=100)

    assert (found["jobs"], found["left"]) == (100, 0)


SOAKED = {
    "samples": [{"at": 60.0, "begun": 5, "resident": 1, "dead": 1, "size": 1}],
    "over_time": [{"p50": 1.0, "p99": 2.0}],
}


async def test_a_soak_says_what_became_of_memory_and_latency(ours: Subject) -> None:
    found = await stress.soak(replace(ours, seconds=1.0), Server(), rate=1000.0)

    assert (found["jobs"], found["lost"], found["repeated"]) == (1000, 0, 0)
    assert len(found["over_time"]) == stress.SAMPLES
    assert all(sample["resident"] > 0 and sample["size"] > 0 for sample in found["samples"])
    lines = "\n".join(
        soaks(Found({"forge-jobs.best.soak-nothing-1.1": found}), [("forge-jobs", "best")])
    ).splitlines()
    assert lines[0].startswith("| A soak of forge-jobs, until minute | jobs/s |")
    assert len(lines) == 2 + LINES


async def test_a_soak_notes_when_no_job_began_for_a_while(
    ours: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stress, "HELD_UP", 0.0)
    async with fresh("sqlite", Server()) as place:
        stops = stress.Stops(place, began=time.monotonic())
        for started in (0, 10, 10, 10, 20, 30, 30):  # nothing is a stop before the first job has begun
            await stops.look(started)
        stops.end()

    [stop, last] = stops.found
    assert min(stop["seconds"], last["seconds"]) > 0
    assert stop["doing"] == ["nobody can tell"]
    assert "No job began for" in "\n".join(
        soaks(Found({"a.best.soak-nothing-1.1": SOAKED | {"stops": stops.found}}), [("a", "best")])
    )


async def test_a_soak_whose_looks_fail_says_so(ours: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(place: OnSqlite) -> int:
        raise OSError("no such file")

    monkeypatch.setattr(OnSqlite, "size", gone)
    found = await stress.soak(replace(ours, seconds=1.0), Server(), rate=1000.0)

    assert (found["jobs"], found["lost"]) == (1000, 0)
    assert found["beside_failed"] == "OSError: no such file"
    [note] = soaks(Found({"a.best.soak-nothing-1.1": found}), [("a", "best")])
    assert note == "* What is not the pickup was looked at 0 times only: OSError: no such file"


def test_percentiles_over_time_are_of_stretches_of_the_run() -> None:
    parts = over_time([1.0, 2.0, 30.0, 40.0], parts=2)

    assert [part["p50"] for part in parts] == [1.0, 30.0]


def test_a_goal_is_a_ratio_of_rounds_beside_the_best_of_the_others() -> None:
    results = {
        f"{peer}.best.throughput-nothing-1.{turn}": {
            "rate": rate,
            "client": 1e-6,
            "server": 2e-6,
            "wal": 400.0,
        }
        for peer, rates in (
            ("forge-jobs", (100.0, 300.0)),
            ("graphile-worker", (50.0, 200.0)),
            ("pgqueuer", (10.0, 20.0)),
            ("procrastinate", (5.0, 50.0)),
        )
        for turn, rate in enumerate(rates, 1)
    }
    results["saq.best.throughput-nothing-1.1"] = {"rate": 900.0, "lost": 1}
    found = goals.goals(results, peers(), dict.fromkeys(peers(), "postgres"))

    assert [(line.what, line.beside, line.ratio, line.is_met) for line in found] == [
        ("throughput", "graphile-worker", 1.75, False),
        ("throughput", "procrastinate", 13.0, True),
        ("client and server", "graphile-worker", 1.0, False),
        ("WAL", "", None, True),
    ]
    assert "| throughput | jobs/s | 200 | 125 | graphile-worker | 1.75 | ratio >= 2 | no |" in goals.markdown(
        found
    )


def test_goals_of_which_a_side_is_missing_are_not_shown() -> None:
    assert goals.markdown(goals.goals({"forge-jobs.best.idle-nothing-1.1": {"p99": 3.0}}, peers(), {})) == ""


def test_what_takes_long_is_measured_only_if_it_is_named() -> None:
    situations = {"other": ["clean", "waiting-1m"]}
    by_itself = {cell.column.what for cell in cells(DATABASES, 1, situations=situations)}
    named = [cell.column for cell in cells(DATABASES, 1, ["stress"], situations=situations)]

    assert by_itself.isdisjoint({What.STRESS, What.SOAK})
    assert named == [Column(What.STRESS, "clean"), Column(What.STRESS, "waiting-1m")]


def test_one_situation_can_be_named() -> None:
    situations = {"other": ["clean", "waiting-1m"]}
    named = [cell.column for cell in cells(DATABASES, 1, ["stress-waiting-1m-1"], situations=situations)]

    assert named == [Column(What.STRESS, "waiting-1m")]


def test_a_queue_is_put_only_in_situations_that_its_adapter_can_make() -> None:
    assert set(stress.of(peers()["forge-jobs"])) == set(stress.SITUATIONS)
    assert "scheduled-1m" not in stress.of(peers()["graphile-worker"])
    assert stress.of(peers()["procrastinate"]) == []


async def test_an_adapter_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(AdapterFailed, match=r"(?s)forge-jobs-sqlite failed: .*unable to open database file"):
        await run(OURS, "prepare", url=str(tmp_path), settings={})


def test_what_is_known_is_not_measured_again(tmp_path: Path, ours_known: Results) -> None:
    said: list[str] = []
    known = [Cell("other", "best", THROUGHPUT, turn) for turn in (1, 2)]
    rounds = Rounds(Server(), {}, ours_known, said.append, tries=1, disturbance=1, longest=60)

    asyncio.run(rounds.run(known))

    assert said == []


def test_what_took_too_long_is_left_out_of_the_rounds_that_follow(ours_known: Results) -> None:
    said: list[str] = []
    first, third = (Cell("other", "best", THROUGHPUT, turn) for turn in (1, 3))
    rounds = Rounds(Server(), {}, ours_known, said.append, tries=1, disturbance=1, longest=60)

    ours_known.put(first.name, {"rate": 10.0, "took": 60.1})
    asyncio.run(rounds.run([third]))
    assert said == []

    ours_known.put(first.name, {"rate": 10.0, "took": 59.9})
    with pytest.raises(KeyError):  # it is measured, of a queue that is not here
        asyncio.run(rounds.run([third]))


@pytest.fixture
def ours_known(tmp_path: Path) -> Results:
    """The results of two rounds of the throughput of another queue."""
    results = Results(tmp_path)
    results.open({"source": "a"}, {"machine": {}})
    for turn in (1, 2):
        results.put(Cell("other", "best", THROUGHPUT, turn).name, {"rate": 10.0 * turn})
    return results


def test_what_failed_is_measured_again(ours_known: Results) -> None:
    cell = Cell("other", "best", THROUGHPUT, 3)
    ours_known.put(cell.name, {"failed": "no"})

    assert ours_known.of(cell) is None
    assert ours_known.get(cell.name) == {"failed": "no"}


def test_results_of_other_code_are_not_mixed(ours_known: Results, tmp_path: Path) -> None:
    Results(tmp_path).open({"source": "a"}, {})
    with pytest.raises(OtherRun, match="another source"):
        Results(tmp_path).open({"source": "b"}, {})

    ours_known.clear()
    Results(tmp_path).open({"source": "b"}, {})
    assert list(ours_known.all()) == []


def test_a_run_that_goes_on_knows_the_queues_of_both_times(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.open({}, {"peers": {"a": 1}, "missing": {"b": "no", "c": "no"}, "began": "then"})
    results.open({}, {"peers": {"b": 2}, "missing": {}, "began": "now"})

    assert results.facts["peers"] == {"a": 1, "b": 2}
    assert results.facts["missing"] == {"c": "no"}
    assert results.facts["began"] == "then"


def measured(rate: float, **more: Any) -> Result:
    return {"rate": rate, "client": 1e-6, "server": 2e-6, "wal": 500.0, "lost": 0, "repeated": 0, **more}


RESULTS = {
    **{f"forge-jobs.best.{THROUGHPUT.name}.{turn}": measured(40_000 + turn) for turn in (1, 2, 3)},
    f"other.best.{THROUGHPUT.name}.1": measured(20_000),
    f"hasty.best.{THROUGHPUT.name}.1": measured(90_000, repeated=3),
    f"broken.best.{THROUGHPUT.name}.1": {"failed": "broken failed: no such thing"},
    f"slow.best.{THROUGHPUT.name}.1": measured(10, left=7),
    "size.other.best.nothing": {"jobs": 5, "foreign": 0.5},
}
SERVERS = dict.fromkeys(["forge-jobs", "other", "hasty", "broken", "slow"], "postgres")


def test_the_fastest_is_first_and_who_repeats_jobs_is_not_ranked() -> None:
    keys = [peer for peer, _ in Found(RESULTS).keys]

    assert keys[:3] == ["forge-jobs", "other", "slow"]
    assert keys[-1] == "hasty"


def test_the_table_shows_medians_and_what_went_wrong() -> None:
    text = tables(RESULTS, SERVERS)

    assert "| **forge-jobs** | best | 40,002 [40,001-40,003] |" in text
    assert "| hasty (not ranked) | best | 90,000 |" in text
    assert "* hasty best: repeated up to 3 jobs of a cell" in text
    assert "* broken, best, throughput-nothing-1: broken failed: no such thing" in text
    assert "* slow, best, throughput-nothing-1: broken off with up to 7 jobs left" in text
    assert "pinned" not in text  # nothing of it is known


def test_a_number_that_was_disturbed_is_marked() -> None:
    name = f"other.best.{THROUGHPUT.name}"
    text = tables({f"{name}.1": {"rate": 9.0, "disturbed": True}, f"{name}.2": {"rate": 11.0}}, SERVERS)

    assert "| other | best | ~10 [9.00-11] |" in text
    assert "* ~ others used the machine too much" in text


def test_what_a_queue_does_under_stress_is_shown_as_a_share_of_the_clean_figure() -> None:
    text = tables(
        {
            "other.best.stress-clean-1.1": {"rate": 1000.0},
            "other.best.stress-waiting-1m-1.1": {"rate": 900.0},
        },
        {"other": "postgres"},
    )

    assert "| Under stress, jobs/s | settings | clean | 1 million waiting |" in text
    assert "| other | best | 1,000 | 900 (0.90) |" in text


def test_a_chart_is_a_picture_with_a_bar_for_each() -> None:
    picture = xml.etree.ElementTree.fromstring(
        svg("<Throughput>", [Bar("a & b", Range([1, 3])), Bar("c", Range([2]))])
    )

    kinds = [element.tag.rpartition("}")[2] for element in picture]
    assert kinds.count("rect") == 2
    assert "a & b" in [element.text for element in picture]


def found() -> Mapping[str, Any]:
    facts = {
        "database": "postgres",
        "versions": {"p": "1"},
        "runtime": "Python",
        "settings": {"defaults": {"a": 1}, "best": {"a": 2}},
    }
    return {
        "began": "2026-01-01",
        "command": "make bench-peers",
        "machine": {"processor": "2 x fast"},
        "PostgreSQL": {"fsync": "on"},
        "peers": dict.fromkeys(SERVERS, facts),
        "cells": RESULTS,
    }


def test_the_page_shows_what_one_has_to_know_to_believe_it() -> None:
    catalogue = {name: Peer(name, note="It keeps nothing.") for name in SERVERS}
    text = page.text(found(), {"gone": "it is not in any registry"}, catalogue)

    for word in ("`make bench-peers`", "fsync: on", "p 1", '{"a": 2}', "It keeps nothing."):
        assert word in text
    assert "others used 0.50 cores in the median cell, and 0.50 in the most" in text
    assert "* gone is not measured: it is not in any registry" in text


def test_only_what_is_between_the_marks_is_replaced(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"before\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n")

    page.publish(found(), "new", document, tmp_path / "benchmarks")
    page.publish(found(), "new", document, tmp_path / "benchmarks")

    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\n\nafter\n")
    assert "old" not in text
    assert text.count("\nnew\n") == 1
    assert "(benchmarks/throughput.svg)" in text
    raw = json.loads((tmp_path / "benchmarks" / page.RAW).read_text())
    assert raw["cells"] == RESULTS


def test_queues_that_are_not_ranked_are_not_in_the_charts() -> None:
    picture = page.charts(found())["throughput"]

    assert "forge-jobs" in picture
    assert "hasty" not in picture


def test_the_document_has_the_marks() -> None:
    text = page.PAGE.read_text(encoding="utf-8")

    assert 0 < text.index(page.BEGIN) < text.index(page.END)


def test_a_line_of_progress_says_what_went_wrong_and_who_else_was_there() -> None:
    cell = Cell("other", "best", THROUGHPUT, 1)

    assert shown(cell, {"rate": 1000.0, "lost": 2, "repeated": 0, "foreign": 0.5}) == (
        "1,000 jobs/s, 2 lost, others used 0.50 cores"
    )
    late = Cell("other", "best", LOAD, 1)
    assert shown(late, {"p50": 1.5, "p99": 20.0, "foreign": None}) == "p50 1.50 ms, p99 20 ms"
    assert shown(cell, {"failed": "no"}) == "failed: no"


BUSY = "import time\nwhile time.process_time() < 0.2: pass"

PARENT_OF_BUSY = """
import subprocess, sys
sys.stdin.readline()
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
print("it has ended", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_the_time_of_a_process_includes_those_below_it() -> None:
    machine_before = busy_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT_OF_BUSY, BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        before = tree_seconds(parent.pid)
        print(file=parent.stdin, flush=True)
        assert parent.stdout.readline()
        after = tree_seconds(parent.pid)
        without = tree_seconds(parent.pid, without=[parent.pid])
    machine_after = busy_seconds()

    assert before is not None and after is not None
    assert machine_before is not None and machine_after is not None
    assert after - before >= 0.18  # a tick or two less, as /proc rounds
    assert without == 0
    assert machine_after > machine_before


def test_a_time_that_nobody_can_tell_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.processor.PROC", tmp_path)

    assert tree_seconds(os.getpid()) is None
    assert busy_seconds() is None


def test_the_command_line_lists_what_there_is_and_refuses_what_there_is_not() -> None:
    root = Path(__file__).parents[2]

    def comparison(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks.comparison", *arguments]
        return subprocess.run(command, cwd=root, capture_output=True, text=True)

    listed = comparison("--list")
    assert all(name in listed.stdout for name in (*peers(), *(column.name for column in COLUMNS)))
    refused = comparison("--only", "celery")
    assert refused.returncode == 2
    assert "--only is 'celery', allowed are forge-jobs" in refused.stdout


@pytest.mark.parametrize(("shape", "jobs"), [("chains", 20), ("join", 21)])
async def test_flows_that_an_adapter_starts_are_worked_off_whole(shape: str, jobs: int) -> None:
    peer = peers()["forge-jobs"]
    subject = Subject(peer, await run(peer, "describe"), "best", seconds=5)
    with Server() as server:
        started, worked = await flows_beside.drained(server, subject, shape, jobs)

    assert (started.jobs, worked.jobs) == (jobs, jobs)
    assert started.seconds > 0 and worked.seconds > 0
