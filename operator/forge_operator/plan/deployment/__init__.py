"""The Deployment of a version, from its owner down to the variables of its worker."""
