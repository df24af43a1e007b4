"""What runs a compiled bundle: numpy, Pillow and tvm_ffi; neither torch nor the TVM compiler is imported."""
