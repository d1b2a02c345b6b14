"""Synthesis: new latents with the content of one scan and the style of another (Sec. 3.5, specification, section 9)."""
