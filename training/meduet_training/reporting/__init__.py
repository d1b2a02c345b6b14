"""What a run leaves for people: its card, its pictures, and a page that tells how it went."""
