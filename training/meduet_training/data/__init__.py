"""What the trainings feed on: cohorts, prepared scans, simulated scanners, latents."""
