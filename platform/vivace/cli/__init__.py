"""The command line: one small file per verb, each a thin command over a function of the platform."""
