"""Another rank of the run is gone: say so, instead of a page of torch's."""

from __future__ import annotations

import torch.distributed as dist


def tells_of_lost_rank(error: RuntimeError) -> bool:
    """Whether an error is that of a collective whose partner is gone or silent.

    NCCL's errors have a class of their own; gloo's have its name in them only.
    """
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)
