"""A floating-point GEMM core (fp32; bf16 with fp32 sums) for the same device: what the accelerator is compared with."""
