"""The pages of the documentation as tests read them: their fenced blocks, and what becomes of each."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]

_FENCED = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_QUOTED = re.compile(r"<!-- from (?P<file>\S+) -->\n+\Z")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page. One after `<!-- from examples/x.py -->` is a part of that file."""

    page: Path
    line: int
    language: str
    text: str
    quoted: str | None = None

    @property
    def place(self) -> str:
        """Where it begins."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The name in a first line like `# app.py` or `# shop.cron: what is in it`."""
        match = re.match(r"# (\w+\.(?:py|cron))[:\n]", self.text)
        return match and match[1]

    @property
    def commands(self) -> list[str]:
        """Its lines as commands of a shell, without comments; one that goes on after a \\ or in quotes is one."""
        found: list[str] = []
        begun = ""
        for line in self.text.replace("\\\n", " ").splitlines():
            begun += re.split(r"(?:^|\s+)# ", line)[0].strip() + "\n"
            if not _is_open(begun):
                found += [begun.strip()] if begun.strip() else []
                begun = ""
        return found


def _is_open(command: str) -> bool:
    """Whether a quotation goes on in the next line."""
    try:
        shlex.split(command)
    except ValueError:
        return True
    return False


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of the page in their order, of these languages if any is given."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
            quoted["file"] if (quoted := _QUOTED.search(text, 0, match.start())) else None,
        )
        for match in _FENCED.finditer(text)
        if not languages or match["language"] in languages
    ]


def commands(page: Path) -> list[str]:
    """Return what the page tells people to type."""
    return [command for block in blocks(page, "sh") for command in block.commands]
