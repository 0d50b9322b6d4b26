#!/bin/bash
# A distributed run on 16 GPUs, four machines of four:  sbatch scripts/train_slurm.sh RECIPE --data MANIFEST --out RUN
#
# Five minutes before its time is up Slurm sends SIGUSR1 to the processes, which save and leave with code 75; the job then queues itself again
# and goes on. A process that is lost ends the others (code 4), and whatever else goes wrong ends the job for good.
#SBATCH --job-name=transphere
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000)) WORLD_SIZE=$SLURM_NTASKS OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
export TORCH_CPP_LOG_LEVEL=${TORCH_CPP_LOG_LEVEL:-ERROR}
# One task a GPU, without torchrun between: signals and exit codes pass as they are.
# shellcheck disable=SC2016  (the variables are those of each task)
srun --kill-on-bad-exit=0 bash -c \
    'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec "${PYTHON:-python}" -m transphere.training fit "$@" --resume auto' fit "$@"
code=$?
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
