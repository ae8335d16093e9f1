"""Tables, pictures and pages of the researcher."""
