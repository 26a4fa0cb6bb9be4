"""`python -m forge_operator` runs the operator."""

import os
import sys

from forge_operator.program import main

if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # a thread of the informer that hangs must not keep the process
