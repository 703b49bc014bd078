"""What acts on the tokens of one step: batch, entries, decisions."""
