"""Machines that are set up in the browser: their normal recordings, the jobs that check and fit, the microphones."""
