"""Analysis of content and style factors."""
