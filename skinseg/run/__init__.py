"""What a run, and whatever else is written, is on the disk."""
