"""The search space of the report, scored and recorded."""
