"""Studies that train and compare many networks."""
