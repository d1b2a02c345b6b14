"""Synthesis of latents with the content of one scan and the style of another (specification, section 9)."""
