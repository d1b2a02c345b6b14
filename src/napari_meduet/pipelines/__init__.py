"""One user's question each: a request goes in, volumes and a report come out."""
