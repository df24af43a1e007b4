"""Published quantizers and their searches, replicated for comparison with the deployed ones."""
