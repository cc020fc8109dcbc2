"""Parameters that the loss does not feel."""

from influence_core.models.classifier import Classifier

# Biases of the attention's keys, by the end of their names: BERT and RoBERTa, DistilBERT, ViT. T5 has none.
KEY_BIASES = (".attention.self.key.bias", ".attention.k_lin.bias", ".attention.k_proj.bias")


def unfelt(classifier: Classifier) -> frozenset[str]:
    """Return the names of parameters whose exact gradient is 0 whatever the data: biases of attention keys.

    A key's bias adds qᵀb to all of a query's scores alike, and the softmax over keys takes that
    away. What is computed for them is rounding (1e-10, say), which Adam divides by its own size:
    steps of the full learning rate in directions that mean nothing, and derivatives of these steps
    that are huge and just as meaningless. They change no prediction. Empty for a model whose
    layout is not known here.
    """
    if classifier.layout is None:
        return frozenset()
    return frozenset(name for name, _ in classifier.module.named_parameters() if name.endswith(KEY_BIASES))
