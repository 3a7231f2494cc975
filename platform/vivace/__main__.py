"""`python -m vivace`: the program `vivace`."""

from vivace.cli.main import main

main()
