"""Trainings as jobs of a server: submitted, watched, stopped, resumed; on SLURM or on a plain machine."""
