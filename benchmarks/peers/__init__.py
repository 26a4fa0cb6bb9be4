"""The queues that are compared: one file each, run by a Python or Node that has that queue and nothing else.

`packages.toml` says what is installed for each, and who is missing and why. What an adapter
has to be is said in `adapter.py`, and for Node in `adapter.mjs`.
"""
