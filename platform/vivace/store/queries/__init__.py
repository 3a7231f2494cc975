"""What readers ask of the store, by what they look at: the board, a conversation, submissions, a log, arms."""
