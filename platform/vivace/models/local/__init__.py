"""Models on this machine, each in a process of its own: the programs that hold them, and how they are spoken with."""
