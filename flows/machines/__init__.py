"""What a home does as one of several machines that share no folder: outputs, jobs, erasures."""
