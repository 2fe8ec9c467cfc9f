"""Trained models at work: loading, predicting images, streaming videos, writing results."""
