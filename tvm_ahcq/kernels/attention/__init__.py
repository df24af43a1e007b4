"""Log-domain integer attention kernels."""
