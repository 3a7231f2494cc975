"""Starting workers where the hardware is: on this machine, on a Slurm cluster, as jobs of the Hugging Face hub."""
