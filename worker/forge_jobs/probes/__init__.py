"""What HTTP answers a supervisor."""
