"""The commands: each module adds its arguments to a parser; what it needs to run is imported when it runs."""
