#!/bin/bash
# One run on two machines with 8 GPUs each: sbatch scripts/slurm.sh mine.yaml [key=value ...]
# If Slurm starts the job again, the run goes on from its last checkpoint.
#SBATCH --job-name=nlp-ft
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # two jobs may share a machine

# srun does not take over --cpus-per-task from sbatch by itself.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  torchrun --nnodes="$SLURM_NNODES" --nproc_per_node="${SLURM_GPUS_ON_NODE:-1}" \
  --rdzv_backend=c10d --rdzv_id="$SLURM_JOB_ID" --rdzv_endpoint="$first:$port" \
  -m nlp_ft train "$@" --resume
