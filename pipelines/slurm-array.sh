#!/bin/bash
# One model with one dataset of a job per task, on as many nodes as there are. The numbers are those
# of the plan; all tasks write to one lake, which lies where every node sees it:
#   .venv/bin/tracer job plan pipelines/nightly.yaml
#   PERIOD=$(date -u +%F) sbatch --array=1-4 pipelines/slurm-array.sh
# PERIOD keeps tasks that wait until after midnight in the night they were sent in.
# A task that is preempted or runs out of time resumes when it is queued again.
#SBATCH --job-name=moe-tracer
#SBATCH --array=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output=moe-tracer-%A_%a.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit with sbatch from the checkout}"
job=${JOB:-pipelines/nightly.yaml}
task=${SLURM_ARRAY_TASK_ID:?submit with sbatch --array}
exec .venv/bin/tracer job run "$job" --only "$task" ${PERIOD:+--period "$PERIOD"} >"job-$task.json"
