"""Sweeps: many jobs of one command line, planned before the first one starts."""
