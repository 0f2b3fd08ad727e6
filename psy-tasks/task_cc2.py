# task_cc2.py

import platform

from examples.communication import CommunicationChannel
import numpy as np
from psyrun import Param, Sqsub

pspace = Param(D=np.arange(2, 5)) * Param(N=[10, 50, 100])
min_items = 1
max_jobs = 6

sharcnet_nodes = ['narwhal', 'bul', 'kraken', 'saw']
if any(platform.node().startswith(x) for x in sharcnet_nodes):
    workdir = '/work/jgosmann/tcm'
    scheduler = Sqsub(workdir)
    scheduler_args = {
        'timelimit': '10m',
        'memory': '512M'
    }

def execute(**kwargs):
    return CommunicationChannel().run(**kwargs)
