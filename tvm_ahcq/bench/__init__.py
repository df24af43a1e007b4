"""Speed and memory of a bundle beside other runtimes of the same float model, measured in turn in one run."""
