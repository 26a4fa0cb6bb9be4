"""How fast forge-jobs is, beside bare loops of its own statements and beside other queues.

`python -m benchmarks` measures; docs/benchmarks.md says how, and how to read it.
"""
