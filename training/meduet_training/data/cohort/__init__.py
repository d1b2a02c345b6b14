"""Which scans a cohort has, what was found in them, and how they are split."""
