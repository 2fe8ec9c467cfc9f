"""Downloading and unpacking public data sets."""
