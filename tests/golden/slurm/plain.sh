#!/bin/sh
PSYRUN_JOB="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
export PSYRUN_JOB
trap '' USR1
echo "psyrun: job $PSYRUN_JOB on node ${SLURMD_NODENAME:-$(hostname)}"
cd '/data' || exit 75
exec '/opt/venv/bin/python' '-m' 'psyrun.worker' '/data/psy-work/square'

# 'sbatch'
# '--parsable'
# '--comment=psy:0123abcd'
# '--job-name=square'
# '--array=0-3'
# '--open-mode=append'
# '--requeue'
# '--chdir=/data'
# '--output=/data/psy-work/square/log/job-%A_%a.log'
