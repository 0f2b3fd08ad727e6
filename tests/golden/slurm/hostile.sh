#!/bin/sh
PSYRUN_JOB="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
export PSYRUN_JOB
trap '' USR1
echo "psyrun: job $PSYRUN_JOB on node ${SLURMD_NODENAME:-$(hostname)}"
cd '/d a/it'"'"'s; echo %j $(id) \' || exit 75
exec '/o p/it'"'"'s/python' '; echo x' '"$HOME"' '`id`' 'a
b' '\' '' '*' 'ä'

# 'sbatch'
# '--parsable'
# '--comment=psy:0123abcd'
# '--job-name=a_b__echo__c___j_'
# '--array=0-0'
# '--open-mode=append'
# '--requeue'
# "--chdir=/d a/it's; echo %j $(id) \\"
# "--output=/d a/it's; echo %%j $(id)/%%%%/job-%A_%a.log"
