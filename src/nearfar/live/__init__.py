"""The plant: streams of windows -> scores -> alarms, kept in a history and reported to other systems."""
