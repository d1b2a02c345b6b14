"""Training: what takes hours or days, without a screen. The plugin never imports this package."""
