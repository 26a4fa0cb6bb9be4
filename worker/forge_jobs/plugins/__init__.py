"""What a program adds to the life of its forge and its jobs: plugins, and what handlers are provided with."""
