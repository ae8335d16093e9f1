"""Where sound comes from: folders, sound cards, ffmpeg, pipes; one stream or two aligned ones."""
