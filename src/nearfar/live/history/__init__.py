"""What a plant remembers: scores, events, audit, the outbox, the sound of events."""
