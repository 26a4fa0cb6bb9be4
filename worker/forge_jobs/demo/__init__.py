"""A demonstration on real input: hash every file of a folder, through the queue.

It uses the public names of forge-jobs only, as any program would, and checks its own
result against a direct walk. Started by `make demo`, `forge-jobs demo` and
`python -m forge_jobs.demo`.
"""

from forge_jobs.demo.demonstration import run
from forge_jobs.demo.files import standard_library
from forge_jobs.demo.report import DemoReport

__all__ = ["DemoReport", "run", "standard_library"]
