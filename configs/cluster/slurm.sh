#!/usr/bin/env bash
# A search as one Slurm job on whole nodes: sbatch configs/cluster/slurm.sh configs/li-si-cluster.yaml /shared/runs/li-si
# The same command resumes it. Run it in the repository's folder, on a disk that all nodes share.
# Checked: the script's commands against the options of Ray 2.60 and hostguide. Not tried on a Slurm cluster.
#SBATCH --job-name=hostguide
#SBATCH --nodes=4                # <- the one line to change for size
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive              # Ray's end on a node ends every Ray of yours there
#SBATCH --time=24:00:00
set -euo pipefail

config=${1:?the search, for example configs/li-si-cluster.yaml}
run=${2:?where its results go: an absolute path that all nodes see, or s3://bucket/name}

export PATH=$PWD/.venv/bin:$PATH
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
ray get-auth-token --generate > /dev/null   # kept in ~/.ray, which all nodes share

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus="$SLURM_CPUS_ON_NODE" -- \
  hostguide search "$config" --address auto --run "$run"
