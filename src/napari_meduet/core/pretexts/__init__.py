"""Other pretexts in the same loop: masked autoencoding, and masked diffusion (specification, section 11)."""
