"""Which experts a verifying pass may read: rules that choose them, and what puts a rule on a model's routers."""
