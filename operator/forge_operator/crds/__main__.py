"""Write the files of the custom resource definitions, from the root of the repository; with `--print`, say the definitions."""

import sys
from pathlib import Path

from forge_operator.crds import files, printed


def main() -> None:
    """Every file is as `files()` says, or the definitions are on the standard output."""
    if sys.argv[1:] == ["--print"]:
        print(printed(), end="")
        return
    for path, text in files().items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
