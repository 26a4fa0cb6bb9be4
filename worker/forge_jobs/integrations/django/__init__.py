"""Django's tasks as jobs of forge-jobs: an app, a backend of TASKS, and a command that works."""
