"""What a model does on patients it never saw: the figures that its card and the documentation quote."""
