"""Machines before they are live: their normal recordings, the jobs that check and fit, microphones, a rehearsed day."""
