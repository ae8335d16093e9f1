"""The plant: streams of windows -> scores -> alarms that people trust, kept in a history and told to other systems."""
