"""The paper's experiments and our own checks, resumable piece by piece."""
