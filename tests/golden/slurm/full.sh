#!/bin/bash -l
PSYRUN_JOB="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
export PSYRUN_JOB
trap '' USR1
echo "psyrun: job $PSYRUN_JOB on node ${SLURMD_NODENAME:-$(hostname)}"
module load python/3.11
source '/opt/my env/bin/activate'
cd '/data' || exit 75
exec '/opt/venv/bin/python' '-m' 'psyrun.worker' '/data/psy-work/square'

# 'sbatch'
# '--parsable'
# '--comment=psy:0123abcd'
# '--job-name=square'
# '--array=0-99%5'
# '--open-mode=append'
# '--requeue'
# '--chdir=/data'
# '--output=/data/psy-work/square/log/job-%A_%a.log'
# '--time=0-01:30:00'
# '--signal=B:USR1@60'
# '--cpus-per-task=4'
# '--nodes=1'
# '--mem=1536M'
# '--cores-per-socket=2'
# '--sockets-per-node=1'
# '--gres=gpu:a100:2'
# '--partition=short,long'
# '--account=def-x'
# '--qos=high'
# '--constraint=avx2&ssd'
# '--nodelist=n1,n2'
# '--reservation=r'
# '--nice=10'
# '--mail-type=END'
# '--mail-user=me@example.org'
# '--dependency=afterany:17'
# '--exclude=n[7-8],n3,n4'
# '--exclusive'
# '--licenses=matlab:1'
