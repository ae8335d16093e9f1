"""What every room uses: argument checks, files, threads, words, downloads."""
