"""The researcher's bench: data sets of the challenge, evaluated by its rules."""
