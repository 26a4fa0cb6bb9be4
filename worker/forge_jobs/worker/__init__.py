"""What runs: a worker claims jobs, runs their handlers, and records how each ended."""
