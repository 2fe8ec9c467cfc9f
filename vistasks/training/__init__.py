"""What the training loop (`vistasks.train`) stands on: the state and how it is kept, evaluation, guards, stopping."""
