"""The accelerator: specification, numpy model, RTL, and what builds and checks them."""
