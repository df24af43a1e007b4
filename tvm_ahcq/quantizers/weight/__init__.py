"""Weight quantization, and function-preserving or conditioning changes of weights before it."""
