#!/bin/bash
# Train with torchrun: on one machine, or the same line on each of several that reach each other.
#   make train CONFIG=configs/gpu_8x.yaml LAUNCH=torchrun
#   configs/cluster/torchrun.sh --config configs/gpu_8x.yaml
#   NODES=4 HEAD=node0:29500 configs/cluster/torchrun.sh --config configs/gpu_8x.yaml
# PROCESSES a machine (its GPUs, by default), RESTARTS after a failure without asking anybody.
# SIGTERM to torchrun reaches the ranks: they write a checkpoint and leave; torchrun itself then
# ends with a code of its own (1), not with theirs.
set -eu

PROCESSES=${PROCESSES:-$(.venv/bin/python -c "import torch; print(torch.cuda.device_count() or 1)")}
NODES=${NODES:-1}

# torchrun's own store outlives a restart, and with it the addresses of ranks that are gone: a rank
# that starts before its neighbour would call a dead one. So rank 0 opens a new store each time.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

exec .venv/bin/python -m torch.distributed.run \
    --nnodes "$NODES" --nproc-per-node "$PROCESSES" --max-restarts "${RESTARTS:-3}" \
    --rdzv-backend c10d --rdzv-id miniflamingo --rdzv-endpoint "${HEAD:-localhost:0}" \
    -m miniflamingo fit "$@" \
    --trainer.devices "$PROCESSES" --trainer.num_nodes "$NODES" --ckpt_path last
