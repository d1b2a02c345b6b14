"""Command-line programs, one file each, and the options that they share."""
