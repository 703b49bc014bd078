"""What acts on the tokens of one step: segments of each request, batch, entries, decisions."""
