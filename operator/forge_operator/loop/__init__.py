"""What runs: who leads looks, plans and acts."""
