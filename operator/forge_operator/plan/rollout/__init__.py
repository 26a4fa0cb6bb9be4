"""Which version gets which pods, and when."""
