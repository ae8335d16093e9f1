"""The record of a plant: scores, events, audit, outbox, event audio."""
