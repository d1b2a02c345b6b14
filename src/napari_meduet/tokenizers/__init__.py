"""From a volume to its latent and back."""
