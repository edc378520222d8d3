"""What Lightning calls during a run."""
