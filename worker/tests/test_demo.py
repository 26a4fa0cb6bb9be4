"""The demonstration: what it finds is true, and it notices when it is not."""

import json
from pathlib import Path

import pytest

from forge_jobs.demo import DemoReport, run
from forge_jobs.demo.__main__ import main
from forge_jobs.demo.check import compare
from forge_jobs.demo.files import digest_file, find_files, standard_library
from forge_jobs.demo.watch import percentile
from forge_jobs.errors import InvalidInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "input"
    (folder / "below").mkdir(parents=True)
    (folder / "three lines.txt").write_text("one\ntwo\nthree")
    (folder / "empty").write_bytes(b"")
    (folder / "below" / "grüße.bin").write_bytes(bytes(range(256)) * 5000)
    (folder / "link").symlink_to(folder / "empty")
    return folder


def expect_all_as_planned(report: DemoReport) -> None:
    assert report.problems == []
    assert report.verified
    assert (report.files, report.bytes, report.lines) == (3, 13 + 256 * 5000, 3 + 5001)
    assert (report.retries, report.dead, report.announcements) == (1, 1, 2)
    assert report.cron_fires >= 1


async def test_the_demonstration_proves_itself_on_sqlite(folder: Path, tmp_path: Path) -> None:
    report = await run(folder, report=tmp_path / "report.json", quiet=True)

    expect_all_as_planned(report)
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["verified"] is True
    assert written["files"] == 3


async def test_the_demonstration_proves_itself_on_postgres(folder: Path) -> None:
    expect_all_as_planned(await run(folder, postgres=True, quiet=True))


@pytest.mark.parametrize("name", ["missing", "a file", "nothing"])
async def test_a_folder_without_files_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("x")
    (tmp_path / "nothing").mkdir()

    with pytest.raises(InvalidInput, match=name):
        await run(tmp_path / name, quiet=True)


def test_a_mistake_ends_with_code_2_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "missing")]) == 2

    assert capsys.readouterr().err.count("\n") == 1


def test_a_wrong_result_is_noticed(folder: Path) -> None:
    files = find_files(folder)
    digests = {path: digest_file(path) for path in files}
    assert compare(files, digests).problems == []

    lost = digests.pop(files[0])
    assert compare(files, digests).problems == [f"{lost.path} has no result"]


def test_a_file_that_was_changed_meanwhile_proves_nothing(folder: Path) -> None:
    files = find_files(folder)
    digests = {path: digest_file(path) for path in files}

    (folder / "three lines.txt").write_text("four")

    found = compare(files, digests)
    assert (found.changed, found.problems) == (1, [])


def test_a_file_that_is_gone_is_counted(folder: Path) -> None:
    files = find_files(folder)

    (folder / "empty").unlink()

    assert compare(files, {path: digest_file(path) for path in find_files(folder)}).unreadable == 1


def test_the_standard_library_is_without_installed_packages() -> None:
    parts = {part for path in find_files(standard_library()) for part in Path(path).parts}

    assert parts.isdisjoint({"__pycache__", "site-packages", "dist-packages"})


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0, 2.0], 0.99) == 2.0


def test_the_table_in_the_readme_has_the_rows_that_the_demonstration_prints(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    shown = readme.partition("<!-- what make demo prints -->\n```text\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)

    assert main([str(folder)]) == 0

    def names(table: str) -> list[str]:
        return [line.strip().partition("  ")[0] for line in table.splitlines() if line.startswith("  ")]

    assert names(shown) == names(capsys.readouterr().out)
