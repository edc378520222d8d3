"""Configuration to objects; everything below takes plain values."""
