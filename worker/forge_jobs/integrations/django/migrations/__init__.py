"""What Django is told of the models of the app."""
