"""Tables, pictures and pages for the researcher."""
