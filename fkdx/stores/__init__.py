"""Where encoded images lie: an image folder, a list of files, or tar shards."""
