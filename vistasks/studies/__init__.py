"""Several trainings and what they show beside one another."""
