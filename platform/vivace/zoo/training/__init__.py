"""Training the zoo's models: rows of text, optimisers, the tokenizer, and builds that give the same bytes."""
