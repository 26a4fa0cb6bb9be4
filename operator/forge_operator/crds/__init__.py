"""The custom resource definitions, and the files that hold them.

`python -m forge_operator.crds` writes the files; a test compares them with `files()`.
What people may say comes from `specs`; what the operator answers, in `status`, from here.
"""

from forge_operator.crds.cron import cron_definition
from forge_operator.crds.definition import GROUP, VERSION
from forge_operator.crds.files import files, printed
from forge_operator.crds.queue import queue_definition

__all__ = ["GROUP", "VERSION", "cron_definition", "files", "printed", "queue_definition"]
