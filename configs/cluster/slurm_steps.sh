# The body of the sbatch files: train, and put the job back in the queue if it can go on.
#
# Exit codes: 0 trained. 75 told to stop by SIGTERM or SIGUSR1, checkpoint written. Above 128 a rank
# was killed (memory, machine): the run goes on from its last checkpoint. All else is a mistake that
# would only happen again, and stays as it is.

MOST_RESTARTS=${MOST_RESTARTS:-50}

# What comes last wins: a recipe's own number of devices gives way to the job's.
srun --kill-on-bad-exit=1 .venv/bin/python -m miniflamingo fit "$@" \
    --trainer.devices "$SLURM_NTASKS_PER_NODE" --trainer.num_nodes "$SLURM_JOB_NUM_NODES" \
    --ckpt_path last
code=$?

if [ "$code" -eq 75 ] || [ "$code" -gt 128 ]; then
    if [ "${SLURM_RESTART_COUNT:-0}" -lt "$MOST_RESTARTS" ]; then
        echo "exit code $code: back in the queue"
        scontrol requeue "$SLURM_JOB_ID"
    fi
fi
exit "$code"
