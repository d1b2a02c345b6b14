"""Alternative pretexts: masked autoencoding and masked diffusion (specification, section 11)."""
