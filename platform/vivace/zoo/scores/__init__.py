"""How good the zoo's models are, whole and under crude forms of the methods."""
