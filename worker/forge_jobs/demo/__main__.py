"""`python -m forge_jobs.demo [--postgres] [FOLDER]`: exit code 0, 1 when the outcome differs, 2 for wrong use."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from forge_jobs.demo import run, standard_library
from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.settings.home_folder import expanded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration and return its exit code."""
    wanted = _parser().parse_args(arguments)
    try:
        report = asyncio.run(
            run(wanted.folder, postgres=wanted.postgres, report=wanted.report, concurrency=wanted.concurrency)
        )
    except KeyboardInterrupt:
        return 130
    except ForgeError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InvalidInput) else 1
    return 0 if report.verified else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m forge_jobs.demo", description="Hash every file of a folder, through the queue."
    )
    parser.add_argument(
        "folder",
        type=_folder,
        nargs="?",
        default=standard_library(),
        help="default: Python's standard library",
    )
    parser.add_argument(
        "--postgres", action="store_true", help="use a temporary PostgreSQL, started and stopped by the demo"
    )
    parser.add_argument("--report", type=Path, default=Path("demo-report.json"), help="default: %(default)s")
    parser.add_argument("--concurrency", type=int, default=20, help="jobs at once, default: %(default)s")
    return parser


def _folder(text: str) -> Path:
    return expanded(text).absolute()


if __name__ == "__main__":
    sys.exit(main())
