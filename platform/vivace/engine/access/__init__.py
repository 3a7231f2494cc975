"""Who may come in and see what: tokens of the API, results kept from others or taken off the board."""
