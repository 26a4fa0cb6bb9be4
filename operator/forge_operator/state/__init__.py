"""What is known of the cluster and of the database at one moment."""
