"""Studies that train and compare several runs."""
