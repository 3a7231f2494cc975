"""How good the zoo's models are, whole and under the methods or crude forms of them."""
