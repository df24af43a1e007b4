"""Parts of the training of ``sam2_n``: first weights, optimizers, the two stages, evaluation."""
