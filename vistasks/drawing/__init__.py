"""Images and predictions -> images."""
