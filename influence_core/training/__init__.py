"""Training by recipes: the paper's (App. J) and the demos'."""
