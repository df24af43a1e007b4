"""Code generation for the accelerator (BYOC), and the C++ runtime library that every deployment loads.

So far the room holds ``runtime/``: processor features and the AMX permission, built to ``tvm_ahcq/lib``. The patterns,
instruction set and lowering of the accelerator move in here; see ``README.md`` in this folder.
"""
