#!/bin/bash
# A Tunecast session whose trials are trained by the workers of deploy/slurm-workers.sh.
#
#   sbatch --export=ALL,TUNECAST_STORE=...,TUNECAST_SHARED=$HOME/tuning deploy/slurm-session.sh \
#       --model MODEL --data DATA --budget 2h --workers 4 --output-dir $HOME/tuning/first
#
# All arguments go to `tunecast tune`. It goes on where it was if SLURM requeues it.

#SBATCH --job-name=tunecast-session
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1
#SBATCH --mem=16G
#SBATCH --time=06:00:00
#SBATCH --requeue
#SBATCH --output=tunecast-session-%j.log

set -euo pipefail

: "${TUNECAST_STORE:?is not set: the URL of a store, such as postgresql://USER:PASSWORD@HOST/runs}"
: "${TUNECAST_SHARED:?is not set: a folder that all nodes see under the same path}"

if [ -n "${TUNECAST_VENV:-}" ]; then
    . "$TUNECAST_VENV/bin/activate"
fi

exec tunecast tune --executor queue --store "$TUNECAST_STORE" --shared-dir "$TUNECAST_SHARED" --resume "$@"
