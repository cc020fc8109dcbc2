"""Curvature of the training loss: Hessian-vector products and eigenpairs."""
