#!/usr/bin/env bash
# One run of lvd on several nodes: a Ray head on the first, a worker on each of the others.
#
#   sbatch infra/slurm.sh /shared/curate.yaml
#
# Adapt the lines below, and LVD_VENV. The config's run_dir, its sources, the environment and your home (Ray keeps
# its token there) must be seen by every node. Submitted again, a run that was stopped goes on where it was.
#SBATCH --job-name=lvd
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

config=${1:?usage: sbatch infra/slurm.sh CONFIG [more arguments of lvd run]}
shift
# shellcheck disable=SC1091
source "${LVD_VENV:-$PWD/.venv}/bin/activate"

# Without a token anyone who reaches a node's ports can run code on it.
export RAY_AUTH_MODE=token
ray get-auth-token --generate >/dev/null

# The batch script runs on the first node. Adapt where the first address is not the one that the others reach.
read -r head_ip _ < <(hostname -I)
address=$head_ip:6379
cpus=$SLURM_CPUS_PER_TASK
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

srun --nodes=1 --ntasks=1 --cpus-per-task="$cpus" --nodelist="$SLURMD_NODENAME" \
    ray start --head --node-ip-address="$head_ip" --port=6379 --num-cpus="$cpus" \
    --include-dashboard=false --block &
timeout 120 bash -c "until ray health-check --address $address >/dev/null 2>&1; do sleep 2; done"

others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
    srun --nodes="$others" --ntasks="$others" --cpus-per-task="$cpus" --exclude="$SLURMD_NODENAME" \
        ray start --address "$address" --num-cpus="$cpus" --block &
    sleep 30 # a step counts the cores when it begins: let the workers join
fi

# In the background, so that the trap below hears SIGTERM at once; lvd saves, and ends with 143.
lvd run "$config" --address "$address" "$@" &
run=$!
trap 'kill -TERM "$run"' TERM
# A wait that a signal has ended returns before the run has: wait for it again.
code=0
wait "$run" || code=$?
while kill -0 "$run" 2>/dev/null; do
    code=0
    wait "$run" || code=$?
done
exit "$code"
