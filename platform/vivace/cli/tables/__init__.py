"""Tables of the terminal: the boards' columns, and how a table fits the width."""
