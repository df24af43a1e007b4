"""Runtime of compiled bundles: numpy, Pillow and tvm_ffi, without torch and the TVM compiler."""
