"""Compares what came out of the queue with what a direct walk finds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from forge_jobs.demo.files import Digest, digest_file

SHOWN = 5  # problems named one by one


@dataclass(slots=True)
class Comparison:
    """Totals over the digests, and a sentence for each difference."""

    bytes: int = 0
    lines: int = 0
    unreadable: int = 0
    changed: int = 0
    problems: list[str] = field(default_factory=list)


def compare(files: Iterable[str], digests: Mapping[str, Digest]) -> Comparison:
    """Read every file once more, without the queue, and say what differs.

    A file that was written to meanwhile, or that cannot be read, proves nothing; it is counted.
    """
    comparison = Comparison()
    for path in files:
        _compare_one(path, digests.get(path), comparison)
    comparison.bytes = sum(digest.bytes for digest in digests.values())
    comparison.lines = sum(digest.lines for digest in digests.values())
    if len(comparison.problems) > SHOWN:
        comparison.problems = [
            *comparison.problems[:SHOWN],
            f"{len(comparison.problems) - SHOWN:,} more files differ",
        ]
    return comparison


def _compare_one(path: str, digest: Digest | None, comparison: Comparison) -> None:
    try:
        direct = digest_file(path)
    except OSError:
        comparison.unreadable += 1
        return
    if digest is None:
        comparison.problems.append(f"{path} has no result")
    elif digest.modified_ns != direct.modified_ns:
        comparison.changed += 1
    elif digest != direct:
        comparison.problems.append(f"{path} is {direct.sha256}, the queue found {digest.sha256}")
