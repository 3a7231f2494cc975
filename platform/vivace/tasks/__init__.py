"""Tasks: questions with known answers that an efficiency track asks a model, read from files or made from a seed."""
