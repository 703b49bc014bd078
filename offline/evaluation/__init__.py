"""What a served model answers to the data sets of the field, steered and unsteered."""
