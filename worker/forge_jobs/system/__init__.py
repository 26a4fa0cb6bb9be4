"""What the operating system has: processes, signals and threads."""
