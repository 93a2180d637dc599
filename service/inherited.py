"""What a child process gets of the service's environment: what it needs to run, and none of its secrets.

What is let through is listed. A variable that nobody here has heard of may be anybody's password.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

_NEEDED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "LANG", "LANGUAGE", "LC_*", "TMPDIR", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR",
    "HOSTNAME", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHON*", "COVERAGE_*", "MALLOC_*",
    "CUDA_*", "NVIDIA_*", "HIP_*", "ROCR_*", "HSA_*", "NCCL_*", "GLOO_*", "OMP_*", "MKL_*", "OPENBLAS_*", "KMP_*", "GOMP_*",
    "TORCH*", "PYTORCH_*", "TRITON_*", "TOKENIZERS_*", "TRANSFORMERS_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE",
    "HF_HUB_DISABLE_*", "SSL_CERT_FILE", "SSL_CERT_DIR", "RAY_*", "TUNEYARD_WORKER_*", "MPLCONFIGDIR",
)  # fmt: skip
STORAGE = ("AWS_*", "GOOGLE_*")
"""What opens an object storage, for children that read and write there."""
_NOT_NEEDED = ("RAY_AUTH_TOKEN",)
"""Ray's processes are told which file the token is in."""


def needed(environment: Mapping[str, str], more: Sequence[str] = ()) -> dict[str, str]:
    """The variables that a child gets. `more` are further names; a star in one stands for anything."""
    return {name: value for name, value in environment.items() if _is_any_of(name, more) or _is_needed(name)}


def _is_needed(name: str) -> bool:
    return _is_any_of(name, _NEEDED) and name not in _NOT_NEEDED


def _is_any_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
