"""What to do next: pure functions of what is known."""
