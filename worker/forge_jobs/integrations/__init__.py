"""forge-jobs in other frameworks, one package each."""
