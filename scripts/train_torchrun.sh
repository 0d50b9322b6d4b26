#!/bin/bash
# A distributed run by torchrun; called again, it goes on from the last checkpoint.
#
#   scripts/train_torchrun.sh RECIPE --data MANIFEST --out RUN              every GPU of this machine
#   NPROC=2 scripts/train_torchrun.sh RECIPE ... --set run.device=cpu       two processes on a CPU, to try it
#   NNODES=2 NPROC=8 MASTER=node0:29500 scripts/train_torchrun.sh ...       the same line on each of two machines with 8 GPUs
#
# SIGTERM and SIGUSR1 to torchrun reach the processes, which save and leave; it gives them SHUTDOWN seconds.
set -eu
export TORCHELASTIC_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${SHUTDOWN:-300}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} TORCH_CPP_LOG_LEVEL=${TORCH_CPP_LOG_LEVEL:-ERROR}
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --nproc-per-node "${NPROC:-gpu}" --rdzv-backend c10d --rdzv-endpoint "${MASTER:-localhost:0}" --rdzv-id transphere \
    -m transphere.training fit "$@" --resume auto
