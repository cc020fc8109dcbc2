"""Which training rows push a prediction: one file per method, one sign for all."""
