"""How much of the machine a file may ask for, whoever wrote it."""

MAX_PIXELS = 80_000_000  # of a picture, by default: what cameras and phones take; 240 MB as RGB
