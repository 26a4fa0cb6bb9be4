"""Write what `make demo` prints into README.md: python docs/demo_table.py."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
PLACE = re.compile(r"(?<=<!-- what make demo prints -->\n```text\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def printed() -> str:
    """Return what the demonstration says of Python's own standard library."""
    with tempfile.TemporaryDirectory() as folder:
        demo = [sys.executable, "-m", "forge_jobs.demo"]
        said = subprocess.run(demo, cwd=folder, capture_output=True, text=True, check=True).stdout
    first, *rows = said.splitlines()
    library = f"the standard library of Python {sys.version_info.major}.{sys.version_info.minor}"
    return "\n".join([re.sub(r"^\S+(?=, with)", library, first), *rows[:-1]]) + "\n"


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(PLACE.sub(lambda found: printed(), text, count=1), encoding="utf-8")
