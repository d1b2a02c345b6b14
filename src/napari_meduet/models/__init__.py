"""Models on disk and in memory: cards, weights, styles, and where models are kept."""
