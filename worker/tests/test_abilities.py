"""docs/abilities.md says what is true: each row has a page and a test, and README's rows are among them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "abilities.md"
SEED = r" ?(✓?) ?\|"


def rows(text: str) -> list[tuple[str, ...]]:
    """Return the cells of each row: the ability, four marks, and the rest."""
    found = re.findall(rf"^\| ([^|]+) \|{SEED}{SEED}{SEED}{SEED} (.+) \|$", text, re.MULTILINE)
    return [row for row in found if row[0] not in ("Ability", "---")]


def test_each_ability_is_shown_by_a_test_that_there_is() -> None:
    tests = {
        name
        for folder in (ROOT / "worker" / "tests", ROOT / "operator" / "tests")
        for file in folder.rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    }
    text, _, _ = PAGE.read_text(encoding="utf-8").partition("## What is not here")

    named = [test for row in rows(text) for test in re.findall(r"`(test_\w+)`", row[-1])]

    assert len(named) == len(rows(text)) > 70
    assert set(named) <= tests


def test_the_rows_of_the_readme_are_those_of_the_page() -> None:
    page = {row[:5] for row in rows(PAGE.read_text(encoding="utf-8"))}
    short = [row[:5] for row in rows((ROOT / "README.md").read_text(encoding="utf-8"))]

    assert len(short) > 15
    assert set(short) <= page
