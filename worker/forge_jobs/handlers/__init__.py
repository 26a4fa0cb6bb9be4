"""How a program declares work."""
