"""Scores per image: NumPy in, numbers out; neither torch nor Lightning is imported here."""
