"""What `pip install forge-jobs` installs besides: few libraries, and what each is for."""

import os
import re
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
MOST_MEGABYTES = 45


def installed(requirements: list[str]) -> dict[str, Distribution]:
    """Return the distributions that these requirements bring, by name, with what those need themselves."""
    found: dict[str, Distribution] = {}
    waiting = [(text, "") for text in requirements]
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        found[name] = distribution(name)
        waiting += [
            (need, extra) for need in found[name].requires or () for extra in ("", *requirement.extras)
        ]
    return found


def size(distribution: Distribution) -> int:
    paths = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    return sum(os.path.getsize(path) for path in paths if path.exists())


def test_the_installation_is_small_and_every_library_in_it_is_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    needed = installed(project["dependencies"])
    own = sum(
        os.path.getsize(file)
        for package in ("worker/forge_jobs", "operator/forge_operator")
        for file in (ROOT / package).rglob("*")
        if file.suffix in (".py", ".sql")
    )

    assert needed.keys() == {
        *("asyncpg", "click", "croniter", "msgspec", "prometheus-client", "tzdata", "uvloop"),
        "python-dateutil",  # of croniter
    }
    megabytes = (
        sum(map(size, needed.values())) + 2.5 * own
    ) / 1e6  # Python writes what it compiled beside the files
    assert megabytes <= MOST_MEGABYTES


def test_every_dependency_says_what_it_is_for() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text[text.index("dependencies = [\n") :].partition("\n]")[0].splitlines()[1:]

    assert [line for line in listed if "  # " not in line] == []
