"""The site that `make docs` builds: each public name is in the reference, and each page in the site."""

import re
from pathlib import Path

import pytest
import yaml

import forge_jobs
from forge_jobs import client, testing

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", [forge_jobs, client, testing], ids=lambda package: package.__name__)
def test_the_reference_names_what_is_public_and_each_once(package: object) -> None:
    name, offered = package.__name__, package.__all__  # type: ignore[attr-defined]
    text = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/reference/*.md"))

    shown = re.findall(rf"^::: {re.escape(name)}\.(\w+)$", text, re.MULTILINE)

    assert set(shown) <= set(offered)  # those of forge_jobs that none names are added when the site is built
    assert len(shown) == len(set(shown))


def test_each_page_is_in_the_site_and_in_the_readme() -> None:
    pages = {page.name for page in ROOT.glob("docs/*.md")}
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:\n  - Home")[2]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert pages == set(re.findall(r"- ([\w-]+\.md)$", site, re.MULTILINE))
    assert pages == set(re.findall(r"\]\(docs/([\w-]+\.md)", readme))


def test_broken_links_fail_the_site() -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    [validation] = re.findall(r"^validation:\n(?:  .*\n)+", settings, re.MULTILINE)

    levels = yaml.safe_load(validation)["validation"]

    assert {*levels["nav"].values(), *levels["links"].values()} == {"warn"}
    assert "mkdocs build --strict" in (ROOT / "Makefile").read_text(encoding="utf-8")
