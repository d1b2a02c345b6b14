"""Random changes of crops: simulated scanners, flips, rotations, intensity curves."""
