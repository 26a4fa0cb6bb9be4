"""The commands of README's section about Kubernetes, as its reader types them."""

import re

from tests.e2e.shell import ROOT

HEADING = "## Kubernetes"


def commands() -> list[str]:
    """Return them in their order, one a line of the section's blocks; a line that goes on with a \\ is one."""
    text = (ROOT / "README.md").read_text()
    _, found, rest = text.partition(f"\n{HEADING}\n")
    assert found, f"README has no section {HEADING!r}"
    section = rest.partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]
