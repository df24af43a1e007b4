"""Code generation for the accelerator (BYOC), the accelerator itself, and the C++ runtime library.

``runtime/`` holds the C++; ``hardware/`` the accelerator: specification, model, RTL and what builds and checks them.
See ``README.md`` in this folder.
"""
