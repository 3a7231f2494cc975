"""What the pages show as tables, from what the store gives: one file per board."""
