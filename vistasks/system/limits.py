"""How much of the machine a file may ask for, whoever wrote it."""

MAX_ENLARGED = (
    32_000_000  # pixels up to which any picture may be enlarged for the network; beyond, to twice its own
)
MAX_PIXELS = 80_000_000  # of a picture, by default: what cameras and phones take; 240 MB as RGB
