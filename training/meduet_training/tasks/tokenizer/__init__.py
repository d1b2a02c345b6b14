"""Training of the wavelet tokenizer."""
