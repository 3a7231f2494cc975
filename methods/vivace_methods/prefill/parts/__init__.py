"""What a pruned prefill is made of besides its ranker: selectors, plans, and policies for keys and values."""
