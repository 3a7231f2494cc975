"""How good the zoo's models are, whole and under the methods that each is there for."""
