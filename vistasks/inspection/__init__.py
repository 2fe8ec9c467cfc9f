"""A look inside a network: what its layers are, and what they have learnt."""
