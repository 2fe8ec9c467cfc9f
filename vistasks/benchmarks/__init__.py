"""Measurements that a user can rerun: each file one subject, each `benchmark()` a dict that json can hold."""
