"""What runs while the operator leads: it observes, plans and acts."""
