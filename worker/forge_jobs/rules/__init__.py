"""What is decided: pure functions of the model."""
