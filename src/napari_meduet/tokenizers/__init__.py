"""Tokenizers: variational autoencoders that turn a volume into a small latent and back."""
