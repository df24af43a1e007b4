"""Published quantizer searches, replicated for comparison."""
