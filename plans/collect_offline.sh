#!/bin/sh
# Collect on a machine without network: install the carried wheels for this run only, then calibrate, collect, export.
#
#   plans/collect_offline.sh WHEELS OUTPUT SECONDS [options of benchmarks/collect_offline.py]
#
# WHEELS is a folder of what the machine's own Python lacks beside torch and transformers (wheels.txt); an empty name skips
# the installation. OUTPUT receives runs.sqlite, runs.parquet and summary.json.
set -eu
wheels=$1 output=$2 seconds=$3
shift 3
project=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
packages=$output/site
if [ -n "$wheels" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$packages" "$wheels"/*.whl
fi
export PYTHONPATH="$project/src:$packages${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TUNECAST_CACHE="$output/cache"
exec "$python" "$project/benchmarks/collect_offline.py" --calibration "$project/plans/calibration.yaml" \
    --plan "$project/plans/ladder.yaml" --output-dir "$output" --seconds "$seconds" "$@"
