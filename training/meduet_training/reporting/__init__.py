"""Output of a run for people: run card, panels, charts and the report."""
