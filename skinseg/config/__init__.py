"""The configuration: what can be in it, how it is composed, and whether all in it means something."""
