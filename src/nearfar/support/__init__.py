"""Helpers of every package: argument checks, files, threads, progress, words, downloads."""
