"""The jobs of a server, controlled from a desktop over SSH."""
