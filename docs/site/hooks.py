"""The pages as a site: README.md is its first page, and links to files that are no pages lead to the source."""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import forge_jobs

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """README.md is among the pages."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=_of_site(text, ROOT, "README.md", config)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Links lead to pages of the site, or to the source."""
    if page.file.src_uri == "index.md":
        return markdown
    if page.file.src_uri == "reference/values.md":
        markdown += "".join(f"\n::: forge_jobs.{name}\n" for name in not_named())
    return _of_site(markdown, ROOT / "docs", page.file.src_uri, config)


def not_named() -> list[str]:
    """Return the public names that no page of the reference has."""
    pages = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/reference/*.md"))
    return [
        name
        for name in forge_jobs.__all__
        if not re.search(rf"^::: forge_jobs\.{name}$", pages, re.MULTILINE)
    ]


def _of_site(markdown: str, folder: Path, source: str, config: Any) -> str:
    def moved(link: re.Match[str]) -> str:
        path, anchor = link[1], link[2] or ""
        file = (folder / Path(source).parent / path).resolve()
        if not file.exists():
            raise PluginError(f"{source} links to {path}, which does not exist.")
        if file == ROOT / "README.md":
            return f"]({'../' * source.count('/')}index.md{anchor})"
        if file.is_relative_to(ROOT / "docs") and file.suffix in (".md", ".svg"):
            depth = "" if folder == ROOT else "../" * source.count("/")
            return f"]({depth}{file.relative_to(ROOT / 'docs')}{anchor})"
        return f"]({config.repo_url}/{file.relative_to(ROOT)}{anchor})"

    return LINK.sub(moved, markdown)
