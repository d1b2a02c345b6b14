"""One folder for each training: its configuration, run, validation and export."""
