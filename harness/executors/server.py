"""What the fork server imports first: it silences the libraries that it imports after. Its import is its work."""

import os

from harness.quiet import quiet_libraries

# To ask whether there is a GPU must not start its driver in the process that jobs are forked from.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
quiet_libraries()
