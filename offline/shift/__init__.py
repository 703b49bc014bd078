"""What a fine-tune did to the concepts of a model."""
