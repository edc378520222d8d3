"""Weights & Biases: its logger, what is logged there, and what is read back."""
