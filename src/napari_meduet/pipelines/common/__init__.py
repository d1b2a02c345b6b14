"""What several pipelines share: encoding, memory, progress, provenance."""
