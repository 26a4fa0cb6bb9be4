"""Write the files of the custom resource definitions, from the root of the repository."""

from pathlib import Path

from forge_operator.crds import files


def main() -> None:
    """Every file is as `files()` says."""
    for path, text in files().items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
