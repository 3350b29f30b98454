#!/bin/sh
# Make an environment for Quick-Tune-Tool, which wants older libraries than Tunecast.
#
#   benchmarks/quicktunetool/install.sh FOLDER
#   export TUNECAST_QUICKTUNE_PYTHON=FOLDER/bin/python
#
# TORCH_INDEX names an index of CPU builds where the usual one has none:
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu benchmarks/quicktunetool/install.sh FOLDER
set -eu
folder=${1:?usage: install.sh FOLDER}
here=$(dirname "$0")
python3 -m venv "$folder"
"$folder/bin/pip" install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==2.13.0"
"$folder/bin/pip" install -r "$here/requirements.txt"
"$folder/bin/pip" install --no-deps "quicktunetool==0.0.4"
echo "export TUNECAST_QUICKTUNE_PYTHON=$(cd "$folder" && pwd)/bin/python"
