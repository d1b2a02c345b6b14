"""Trainings as jobs of a server, on SLURM or on a plain machine: submit, follow, cancel, resume, export."""
