"""The training loop (`loop`) and what it stands on: state, checkpoints, guards, validation, stopping."""
