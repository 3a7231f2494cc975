"""What is known of providers: where they are, what they don't take, how they refuse, and what they cost."""
