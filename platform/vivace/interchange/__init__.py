"""What other evaluation tools write, read here, and what they read, written here."""
