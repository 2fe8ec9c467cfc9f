"""The version of this package, stated once."""

VERSION = "0.1.0"
