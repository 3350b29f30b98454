#!/usr/bin/env bash
# All figures of docs/comparing.md, from the runs and the prior that are shipped: comparison.sh FOLDER
#
# TUNECAST_TASKS is the folder of the datasets and TUNECAST_MODELS that of the small base models. With
# TUNECAST_QUICKTUNE_PYTHON (benchmarks/quicktunetool/install.sh) Quick-Tune-Tool is compared with too.
set -euo pipefail
: "${TUNECAST_TASKS:?names the folder of the datasets}" "${TUNECAST_MODELS:?names the folder of the base models}"
here=$(cd "$(dirname "$0")" && pwd)
into=$1
mkdir -p "$into"
export HF_HUB_OFFLINE=1

# What other runs or another prior gave would stand beside what these give.
shipped=$(cd "$here/../src/tunecast" && cat store/runs.parquet surrogates/prior.safetensors | sha256sum)
if [ "$(cat "$into/shipped" 2>/dev/null)" != "$shipped" ]; then
    rm -f "$into"/*.txt "$into"/{task,family,model,smollm2}.json
    echo "$shipped" >"$into/shipped"
fi

part() {  # NAME COMMAND...: its output goes to a file that is whole or not there
    if [ -e "$into/$1" ]; then echo "$1 is there already: delete $into/$1 to measure it anew"; return; fi
    echo "$1"
    "${@:2}" >"$into/$1.unfinished"
    mv "$into/$1.unfinished" "$into/$1"
}

part runs.txt python "$here/comparison_page.py" --runs
for fold in task family model; do
    part "$fold.json" tunecast compare --model nano-16m --clock cpu --rivals --folds $fold \
        --output "$into/$fold.html" --json
done
part smollm2.json tunecast compare --model SmolLM2-135M-Instruct.Q4_1 --clock cpu --json
part surrogates.txt python "$here/surrogates.py"
part ablations.txt python "$here/ablations.py"
if [ -n "${TUNECAST_QUICKTUNE_PYTHON:-}" ]; then
    part scoring.txt python "$here/scoring_speed.py" --most-runs 400
fi

aliens=$into/aliens.sqlite
[ -d "$into/aliens" ] || python "$here/alien_tasks.py" make --tasks "$TUNECAST_TASKS" --output "$into/aliens"
tunecast runs import "$here/../src/tunecast/store/runs.parquet" --store "$aliens"
tunecast collect --plan "$here/alien_tasks.yaml" --store "$aliens" --threads 1 \
    --root aliens="$into/aliens" --root models="$TUNECAST_MODELS"
part aliens.txt python "$here/alien_tasks.py" judge --store "$aliens" --aliens "$into/aliens" --tasks "$TUNECAST_TASKS"

held_out=(e2e_nlg=bleu privacy_question_category=token_f1 restaurant_slots=token_f1 abt_buy_match=exact_match)
sessions() {  # MODEL BUDGET SEEDS
    python "$here/real_sessions.py" --model "$1" --budget "$2" --seeds "$3" --results "$into/sessions.json" \
        "${held_out[@]/#/--data=$TUNECAST_TASKS/}"
}
part sessions-nano.txt sessions "$TUNECAST_MODELS/nano-16m" 130k-tokens 3
part sessions-smollm2.txt sessions smollm2 74k-tokens 1
python "$here/comparison_page.py" "$into" >"$into/page.md"
mv "$into/page.md" "$here/../docs/comparing-figures.md"
