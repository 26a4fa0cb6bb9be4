"""`python -m forge_jobs.cli`."""

import sys

from forge_jobs.cli import main

sys.exit(main())
