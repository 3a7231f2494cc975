"""Which tokens are drafted: how a tree grows from what a drafter says, and how far it is followed or cut."""
