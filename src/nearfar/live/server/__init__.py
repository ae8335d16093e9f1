"""The server over one plant: REST, dashboard, metrics; `app` puts the parts together."""
