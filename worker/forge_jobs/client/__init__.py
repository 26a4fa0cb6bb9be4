"""What people do with a database of jobs, one file a noun; the command line and the HTTP API are these calls."""
