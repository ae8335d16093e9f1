"""Data sets of the challenge: their layout on disk and their download."""
