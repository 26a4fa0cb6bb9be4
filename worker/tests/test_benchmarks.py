"""What the benchmark makes of what it measured. Nothing here depends on how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import child
from benchmarks.bench import NotAllDone, Sample, sampled
from benchmarks.child import SideFailed
from benchmarks.explain import literal, touched
from benchmarks.groups import HandOvers
from benchmarks.idle import statements
from benchmarks.line import AtLeast, AtMost, AtMostTimes, Line
from benchmarks.pickup import Latency, percentile
from benchmarks.report import number, write


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    # the machine became twice as fast after the first round, and both sides with it
    line = Line("throughput", "jobs/s", [10, 20, 22], "bare loop", [20, 40, 40])

    assert (line.ours, line.other, line.ratio) == (20, 40, 0.5)


def test_a_line_without_another_side_has_no_ratio() -> None:
    line = Line("idle", "% of a core", [0.5], goal=AtMost(1))

    assert (line.other, line.ratio, line.is_met) == (None, None, True)


@pytest.mark.parametrize(
    ("goal", "ours", "met"),
    [
        (AtLeast(0.5), 5, True),
        (AtLeast(0.5), 4.9, False),
        (AtMostTimes(1.5), 15, True),
        (AtMostTimes(1.5), 15.1, False),
        (AtMost(5), 5, True),
        (AtMost(5), 5.1, False),
    ],
)
def test_a_goal_is_met_at_its_border(goal: AtLeast | AtMost | AtMostTimes, ours: float, met: bool) -> None:
    assert Line("", "", [ours], "", [10], goal).is_met is met


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 301)]

    assert [percentile(values, share) for share in (0, 0.5, 0.99, 1)] == [1, 150, 297, 300]


def test_latency_is_counted_from_the_call_and_from_its_return() -> None:
    latency = Latency(called=[1.0], returned=[1.002], starts=[1.003])

    assert latency.from_call == [pytest.approx(3)]
    assert latency.from_return == [pytest.approx(1)]


def test_a_job_that_never_began_is_not_passed_over() -> None:
    with pytest.raises(NotAllDone, match="2 jobs were sent, 1 began"):
        Latency(called=[1.0, 2.0], returned=[1.0, 2.0], starts=[1.0])


def test_hand_overs_are_counted_from_one_beginning_to_the_next_and_by_quarters() -> None:
    starts = [0.0, 0.001, 0.002, 0.004, 0.006, 0.009, 0.012, 0.016, 0.020]

    hand_overs = HandOvers.between(starts, jobs=9)

    assert [hand_overs.p50_of_part(part) for part in range(4)] == pytest.approx([1, 2, 3, 4])
    assert hand_overs.p(0.99) == pytest.approx(4)
    with pytest.raises(NotAllDone, match="10 jobs stood in line, 9 began"):
        HandOvers.between(starts, jobs=10)


@pytest.mark.parametrize("sample", [{"jobs": 9, "started": 10}, {"jobs": 10, "started": 11}])
def test_a_run_that_lost_or_repeated_a_job_does_not_count(sample: dict[str, int]) -> None:
    with pytest.raises(NotAllDone, match="10 jobs were given"):
        sampled({"seconds": 1.0, **sample}, 10)


def test_a_sample_says_what_each_job_cost() -> None:
    sample = Sample(jobs=1000, seconds=0.5, cpu=0.01, server_cpu=0.02)

    assert str(sample) == "2,000 jobs/s (10.0 µs a job of its processor time, 20.0 µs a job of the server's)"


def test_only_statements_of_the_database_and_the_time_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "100.000 ours LOG:  execute __asyncpg_stmt_1__: SELECT 1\n"
        "100.500 ours LOG:  statement: BEGIN; \n"
        "100.600 ours DETAIL:  Parameters: $1 = '1'\n"
        "100.700 other LOG:  statement: SELECT 1\n"
        "a line of a statement that is longer than one\n"
        "101.000 ours LOG:  statement: SELECT 1\n"
    )

    assert statements(log, "ours", {"began": 100.0, "ended": 101.0}) == 2


def test_pages_of_a_plan_are_counted_once() -> None:
    taken = {"Subplan Name": "CTE taken", "Shared Hit Blocks": 30}
    owned = {
        "Subplan Name": "CTE owned",
        "Shared Hit Blocks": 5,
        "Plans": [{"Node Type": "CTE Scan", "CTE Name": "taken", "Shared Hit Blocks": 0}],
    }
    scan = {"Node Type": "CTE Scan", "CTE Name": "taken", "Shared Hit Blocks": 30}
    plan = {"Shared Hit Blocks": 40, "Shared Read Blocks": 2, "Plans": [taken, owned, scan]}

    assert touched(plan) == 40 + 2 + 5


def test_values_become_sql_text() -> None:
    values = [None, 5, 0.5, False, "it's", b"\x01\xff", [1, 2]]

    assert [literal(value) for value in values] == [
        *("NULL", "5", "0.5", "False", "'it''s'", "'\\x01ff'", "'{1,2}'"),
    ]


def test_numbers_are_shown_with_the_digits_that_matter() -> None:
    assert [number(value) for value in (0, 0.04567, 1.234, 12.345, 12345.6)] == [
        *("0", "0.0457", "1.23", "12.35", "12,346"),
    ]


def test_the_json_holds_the_facts_and_every_sample(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "result.json"

    write(
        path,
        {"machine": {"Python": "3"}},
        [Line("throughput", "jobs/s", [1, 2], "bare loop", [4, 4], AtLeast(1))],
    )

    report = json.loads(path.read_text())
    assert report["machine"] == {"Python": "3"}
    [line] = report["results"]
    assert (line["our_samples"], line["ratio"], line["goal"], line["met"]) == (
        [1, 2],
        0.375,
        "ratio >= 1",
        False,
    )


def test_a_side_that_fails_says_why() -> None:
    with pytest.raises(SideFailed, match=r"(?s)forge\.prepare failed: .*no_such_protocol"):
        child.run("forge.prepare", url="no_such_protocol:///x")


def test_a_side_does_not_see_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_CONCURRENCY", "not a number")
    monkeypatch.setenv("PATH", "/usr/bin")

    environment = child.clean_environment()

    assert "FORGE_CONCURRENCY" not in environment
    assert environment["PATH"] == "/usr/bin"


def test_the_command_line_says_what_can_be_measured() -> None:
    root = Path(__file__).parents[2]
    shown = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=root, capture_output=True, text=True, check=True
    )

    assert all(word in shown.stdout for word in ("throughput", "explain", "--jobs", "--rounds", "--json"))
