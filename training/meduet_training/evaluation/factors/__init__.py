"""Analysis of the factors of a network: probes, silhouettes and maps of content and style."""
