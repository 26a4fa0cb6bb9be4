"""What the environment says of the program, and of its database."""
