"""The zoo: small models of real classes, trained here from a seed, on which quality falls as methods bite.

Everything measured on them is synthetic: it shows that the plumbing is right and how methods order, never how real
models behave.
"""
