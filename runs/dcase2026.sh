#!/usr/bin/env bash
# Sections 3 and 4 of the report, from the data to a submission, in the order of the report.
#
#   runs/dcase2026.sh [OUT]            the real thing: data and weights are downloaded, then days of work on a CPU
#
# Every step can be stopped and run again: what is done is not done twice. Each variable may be set from outside:
#
#   DEV, EVAL    data sets that are here already; without them they come from Zenodo (CC BY-NC-SA 4.0)
#   WEIGHTS      folder of weights; what it lacks is pulled
#   ENCODERS     networks to embed with and to search over
#   RECIPES      recipes to evaluate on DEV, by name or JSON file
#   SUBMIT       the recipe to submit on EVAL
#   SEARCH       further options of the search, such as --extended
#   STEPS        which steps to do
#   DEVICE       where networks and the search run: cpu, cuda or cuda:N
#   NEARFAR      the command
set -euo pipefail

OUT=${1:-dcase2026}
ENCODERS=${ENCODERS:-"eat-large dasheng openl3 eat-as2m sslam ced-base m2d-clap beats"}
SUBMIT=${SUBMIT:-fusion}
STEPS=${STEPS:-"data weights embed evaluate search fuse reproduce submit"}
NEARFAR=${NEARFAR:-nearfar}
WEIGHTS=${WEIGHTS:-$OUT/weights}
STORE=$OUT/store
HOW=(--store "$STORE" --device "${DEVICE:-cpu}")
mkdir -p "$OUT" "$WEIGHTS"
export NEARFAR_WEIGHTS=$WEIGHTS

todo() { [[ " $STEPS " == *" $1 "* ]] && echo "== $1"; }

# Section 3: seven machines to develop on, 990 + 10 normals each; five others to be judged by, without labels.
if todo data; then
    if [[ -z ${DEV:-} ]]; then $NEARFAR data pull dcase2026-dev --to "$OUT/data"; fi
    if [[ -z ${EVAL:-} ]]; then
        $NEARFAR data pull dcase2026-add --to "$OUT/data"
        $NEARFAR data pull dcase2026-eval --to "$OUT/data"
    fi
fi
DEV=${DEV:-$OUT/data/dcase2026t2/dev_data/raw}
EVAL=${EVAL:-$OUT/data/dcase2026t2/eval_data/raw}

# Section 2.4: frozen networks, from their publishers. What cannot be had is left out of all that follows.
here() { [[ $1 == logmel ]] || $NEARFAR weights "$1" --json | grep -q '"here": "'; }
if todo weights; then
    for encoder in $ENCODERS; do
        here "$encoder" || $NEARFAR weights "$encoder" --pull || echo "$encoder is left out"
    done
fi
HAVE=""
for encoder in $ENCODERS; do
    if here "$encoder"; then HAVE="$HAVE $encoder"; fi
done

# Section 2.3: near, far and the two enhanced waveforms go through every network once.
if todo embed; then
    for data in "$DEV" "$EVAL"; do
        $NEARFAR embed "$data" $(printf -- '--encoder %s ' $HAVE) "${HOW[@]}"
    done
fi

RECIPES=${RECIPES:-$HAVE}

# Section 4.1: the single systems of Table 3 on the development set, each with intervals and a page.
if todo evaluate; then
    for recipe in $RECIPES; do
        name=$(basename "$recipe" .json)
        $NEARFAR evaluate "$DEV" --recipe "$recipe" "${HOW[@]}" --page "$OUT/$name.html" --json > "$OUT/$name.json"
    done
fi

# Sections 2.5 to 2.7: the search space of every network; what is best is best by the labels, and the nested estimate
# beside it says what that is worth.
if todo search; then
    $NEARFAR search "$DEV" $(printf -- '--encoder %s ' $HAVE) "${HOW[@]}" -o "$OUT/search" \
        --page "$OUT/search.html" ${SEARCH:-}
fi

# Section 2.8: weights of a fusion of what the search found.
if todo fuse; then
    $NEARFAR fuse "$DEV" --systems "$OUT/search" "${HOW[@]}" -o "$OUT/fusion.json"
fi

# Section 4: Tables 3, 4 and 5 beside the report's own numbers, the fusion found here among them.
if todo reproduce; then
    FUSED=(); if [[ -f $OUT/fusion.json ]]; then FUSED=(--recipe "$OUT/fusion.json"); fi
    $NEARFAR reproduce "$DEV" $(printf -- '--recipe %s ' $RECIPES) ${FUSED[@]+"${FUSED[@]}"} "${HOW[@]}" --results "$OUT/scores" \
        --page "$OUT/reproduce.html" --tables "$OUT/paper" | tee "$OUT/reproduce.txt"
fi

# What goes to the challenge: scores and decisions of the evaluation machines, checked against their files.
if todo submit; then
    $NEARFAR submit "$EVAL" --recipe "$SUBMIT" "${HOW[@]}" -o "$OUT/submission"
    $NEARFAR submit --check "$OUT/submission" "$EVAL"
fi
