"""The chores: what keeps a queue in order beside running its jobs."""
