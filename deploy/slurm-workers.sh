#!/bin/bash
# Workers for Tunecast sessions that use --executor queue: one for each GPU, as a SLURM array.
#
#   sbatch --export=ALL,TUNECAST_STORE=postgresql://USER:PASSWORD@HOST/runs,TUNECAST_SHARED=$HOME/tuning deploy/slurm-workers.sh
#   sbatch --array=1-32 ...       # 32 workers; they may start at different times, and as many as there is room for
#
# A worker leaves after ten minutes without work, so that no allocation is wasted. SLURM may end or requeue it at
# any time: its step goes to another worker.

#SBATCH --job-name=tunecast-worker
#SBATCH --array=1-4
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@60
#SBATCH --output=tunecast-worker-%A-%a.log

set -euo pipefail

: "${TUNECAST_STORE:?is not set: the URL of the store that the sessions use}"
: "${TUNECAST_SHARED:?is not set: the folder that all nodes share, as the sessions name it}"

# Where Tunecast is installed, if not in the environment that sbatch was called in.
if [ -n "${TUNECAST_VENV:-}" ]; then
    . "$TUNECAST_VENV/bin/activate"
fi

exec tunecast worker --store "$TUNECAST_STORE" --shared-dir "$TUNECAST_SHARED" --idle-exit "${TUNECAST_IDLE_EXIT:-10m}"
