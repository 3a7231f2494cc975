"""What tests share: a chat server on loopback, data sets, the command line, databases."""
