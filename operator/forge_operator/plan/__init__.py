"""Plans, the next actions: pure functions of what is observed."""
