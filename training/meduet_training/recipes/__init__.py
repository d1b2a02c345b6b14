"""Functions that return whole configurations; a variation says what differs."""
