"""Other pretexts in the same loop: masked autoencoding, and masked diffusion (SPEC 11)."""
