"""The models of the zoo: one recipe a file."""
