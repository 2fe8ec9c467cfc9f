"""Samples to batches: augmentation, mixing, sampling, scaling, padding, data workers."""
