"""What a database must do for forge-jobs, a protocol for each noun."""
