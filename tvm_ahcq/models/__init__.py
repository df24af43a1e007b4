"""From a Segment Anything checkpoint to Relax functions and their parameters."""
