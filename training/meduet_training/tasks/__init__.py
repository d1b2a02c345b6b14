"""One folder for each task: its declaration, configuration, run and validation."""
