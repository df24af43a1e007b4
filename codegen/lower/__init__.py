"""From offloaded operators to instruction streams, packed weights and the tables that the C++ runtime reads."""
