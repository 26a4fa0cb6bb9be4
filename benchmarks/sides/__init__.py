"""What runs in a process of its own: one file for each system that is measured.

Functions that take the same part have the same name: `fill` makes jobs wait, `work_through` runs
them all, `idle` has nothing to do, `listen` and `send` measure how soon a job is picked up.
"""
