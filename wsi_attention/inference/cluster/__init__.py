"""Slides done by workers elsewhere: a dask scheduler, processes of this machine, jobs of Slurm."""
