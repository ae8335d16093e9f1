"""Clips -> vectors, each shared step once: one clip, many clips, the cache, the store."""
