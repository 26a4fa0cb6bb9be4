"""`python -m forge_jobs` is the command `forge-jobs`."""

import sys

from forge_jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
