"""What things are: values, without I/O."""
